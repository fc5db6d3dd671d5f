"""A TCP server that owns its connections: once it is left, none of them is there any more, whenever they came.

``asyncio.start_server`` hands connections over in callbacks and tasks of its own, some of them after it was closed, and
leaves them to whoever collects the garbage. Here each is a socket and a task from the moment it is accepted.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

Converse: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(converse: Converse, *, limit: int = 1 << 16, port: int = 0) -> AsyncIterator[int]:
    """Hold each connection's conversation while the block runs; gives the loopback port: a free one, if it is 0.

    ``limit`` as of StreamReader.

    A client that breaks off ends its conversation and nothing else.
    """
    loop = asyncio.get_running_loop()
    conversations: set[asyncio.Task[None]] = set()

    def accept() -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it was gone before it was accepted
        conversation = loop.create_task(_hold(converse, connection, limit))
        conversations.add(conversation)
        conversation.add_done_callback(conversations.discard)
        # A task that is cancelled before its first step never sees its socket.
        conversation.add_done_callback(lambda _: connection.close())

    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            for conversation in conversations:
                conversation.cancel()
            await asyncio.gather(*conversations, return_exceptions=True)


async def _hold(converse: Converse, connection: socket.socket, limit: int) -> None:
    reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        try:
            await converse(reader, writer)
            writer.close()
            await writer.wait_closed()
        finally:
            await break_off(writer)


async def break_off(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, dropping what was not sent yet, and wait until it is gone."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()
