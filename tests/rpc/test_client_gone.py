"""A client that leaves wakes nobody, however grpc.aio tells of it.

It cancels the handler, but now and then what the handler was sending fails first, or what it was reading ends first.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keystow.v1.storage_pb2 import GetRequest
from rpc.wire import MIB, TIMEOUT, chunk, content, header, new_upload_id, put, until
from servers.in_process import register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_reader_that_leaves_is_no_failure(tmp_path: Path) -> None:
    """One line, CANCELLED, though the Get could not send what it was sending."""
    async with serving(tmp_path) as server:
        tenant = await register(server, "acme")
        await put(server, tenant, "key", content(32 * MIB))
        with capture_logs() as log:
            call = server.storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT)
            await call.read()
            call.cancel()
            await until(lambda: log != [])
        assert [outcome(entry) for entry in log] == [("rpc", "Get", "CANCELLED", "")]


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_writer_that_leaves_is_no_failure(tmp_path: Path, *, resumable: bool) -> None:
    """One line, CANCELLED, though the Put found no PutFinish; whether it has been answered before or not."""
    async with serving(tmp_path) as server:
        tenant = await register(server, "acme")
        with capture_logs() as log:
            call = server.storage.Put(timeout=TIMEOUT)
            await call.write(header(tenant, "key", upload_id=new_upload_id(), resumable=resumable))
            await call.write(chunk(0, b"content"))
            if resumable:
                await call.read()
            ending = asyncio.ensure_future(call.done_writing())
            await asyncio.sleep(0)  # begun, and so on its way before what cancels it
            call.cancel()
            await until(lambda: log != [])
            await asyncio.gather(ending, return_exceptions=True)
        assert [outcome(entry) for entry in log] == [("rpc", "Put", "CANCELLED", "")]


def outcome(entry: Mapping[str, object]) -> tuple[object, ...]:
    """Of a call, as the log has it."""
    return entry["event"], entry["method"], entry["code"], entry["reason"]
