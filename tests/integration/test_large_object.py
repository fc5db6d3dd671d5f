"""2 GiB through a server process: byte for byte, in memory that does not grow with the object."""

from pathlib import Path

import pytest

from keystow.v1.storage_pb2 import GetRequest, PutResponse
from rpc.pattern import Pattern
from rpc.wire import MIB, TIMEOUT, body, header
from servers.in_process import attached, register
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
