"""2 GiB through a server process: byte for byte, in memory that does not grow with the object."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, PutResponse
from rpc.pattern import Pattern
from rpc.wire import MIB, TIMEOUT, body, chunk, failure, header
from servers.in_process import NARROW_WINDOW, attached, connected, register
from servers.keystow import keystow_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 2048 * MIB
PEAK_MEMORY = 200 * MIB


async def test_two_gibibytes(tmp_path: Path) -> None:
    """A client that sends everything before it reads anything is served; so is one that reads it all back."""
    pattern = Pattern(SIZE)
    with keystow_server(tmp_path) as process:
        async with attached(process.address, tmp_path) as server:
            tenant = await register(server, "acme")
            call = server.storage.Put(timeout=TIMEOUT)
            await call.write(header(tenant, "key"))
            for message in body(pattern.pieces()):
                await call.write(message)
            await call.done_writing()
            response = await call.read()
            assert isinstance(response, PutResponse)
            assert response.result.object.size == SIZE
            assert process.peak_memory < PEAK_MEMORY
            stream = server.storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT)
            assert await pattern.check(aiter(stream)) == response.result.object
            assert process.peak_memory < PEAK_MEMORY
            [file] = server.stored(tenant)
            file.unlink()  # pytest keeps what tests leave in their folders


async def test_a_client_that_reads_nothing_before_it_has_sent_everything(tmp_path: Path) -> None:
    """1 GiB with ``resumable``, and a client that takes 64 KiB of progress and then no more: the Put goes on."""
    pattern = Pattern(SIZE // 2)
    with keystow_server(tmp_path) as process:
        async with attached(process.address, tmp_path) as server, connected(process.address, NARROW_WINDOW) as channel:
            tenant = await register(server, "acme")
            call = storage_pb2_grpc.StorageServiceStub(channel).Put(timeout=TIMEOUT)
            # A long header makes long tokens, of which fewer fit into the window.
            await call.write(header(tenant, "k" * 900, resumable=True, metadata={"name": "v" * 900}))
            for message in body(pattern.pieces()):
                await call.write(message)
            await call.done_writing()
            progress: list[int] = []
            response: Any = await call.read()
            while response.WhichOneof("message") == "progress":
                progress.append(response.progress.persisted_size)
                response = await call.read()
            assert progress == sorted(set(progress))
            assert progress[0] == 0
            assert response.result.object.size == SIZE // 2
            assert process.peak_memory < PEAK_MEMORY
            [file] = server.stored(tenant)
            file.unlink()


async def test_such_a_client_learns_of_a_failure(tmp_path: Path) -> None:
    """The Put fails while progress fills what the client takes: the client can send to its end, and then is told."""
    with keystow_server(tmp_path) as process:
        async with attached(process.address, tmp_path) as server, connected(process.address, NARROW_WINDOW) as channel:
            tenant = await register(server, "acme")
            call = storage_pb2_grpc.StorageServiceStub(channel).Put(timeout=TIMEOUT)
            await call.write(header(tenant, "k" * 900, resumable=True, metadata={"name": "v" * 900}))
            *chunks, end = body(Pattern(512 * MIB).pieces())
            for message in (*chunks, chunk(0, b"elsewhere"), *chunks[:64], end):
                await call.write(message)
            await call.done_writing()
            told = await failure(_read_all(call))
            assert told.reason == "OFFSET_MISMATCH"


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
