"""The tests' own servers leave nothing behind: what the garbage collector finds later fails some other test."""

import asyncio
import gc
import socket
from contextlib import suppress

import pytest

from client.relay import Relay
from servers.listener import listening


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say back what was said."""
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("steps", range(12))
async def test_a_connection_of_any_age_ends_with_its_server(steps: int) -> None:
    """However far the loop has come with a connection when its server stops: no task is left, and no open end."""
    before = asyncio.all_tasks()
    with socket.socket() as client:
        async with listening(echo) as port:
            client.connect(("127.0.0.1", port))
            for _ in range(steps):
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        gc.collect()
        client.settimeout(10)
        with suppress(ConnectionError):  # which it gets if it ended before it was accepted
            assert client.recv(1) == b""


async def test_a_client_that_breaks_off_ends_its_own_conversation_only() -> None:
    """A reset is not an error, and the next client is served."""
    async with listening(echo) as port:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.read(5) == b"hello"
            writer.transport.abort()
            await writer.wait_closed()


def test_a_relay_ends_with_its_connections() -> None:
    """Whether its target is reached, or is not there; and in the middle of either."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        there = target.getsockname()[1]
        for port in (there, 1):
            for said in (b"", b"hello"):
                with Relay(port) as relay, socket.create_connection(("127.0.0.1", relay.port)) as client:
                    client.sendall(said)
                gc.collect()
