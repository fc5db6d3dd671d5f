"""An export takes the memory of what is under way, however many objects the tenant has."""

import asyncio
import uuid
from pathlib import Path

import pytest

from keystow.v1.storage_pb2 import PutHeader, PutSmallRequest
from rpc.exports import request, stream
from rpc.wire import MIB
from servers.in_process import Server, attached, register
from servers.keystow import keystow_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

FEW, MANY = 1000, 3000
METADATA = {"description": "x" * 900}  # whatever is kept of an object holds it, and so comes to more than a KiB
# Between exports the allocator holds a little more or less; MANY - FEW objects would come to twice as much.
ALLOWED = 2 * MIB


async def test_memory_does_not_grow_with_the_number_of_objects(tmp_path: Path) -> None:
    """After a thousand objects the process has reached its peak: with three thousand, in one folder, it is the same."""
    with keystow_server(tmp_path, settings={"KEYSTOW_EXPORT_CHECKPOINT_OBJECTS": "200"}) as process:
        async with attached(process.address, tmp_path) as server:
            tenant = await register(server, "acme")
            await asyncio.gather(*(_put(server, tenant, range(first, MANY, 16)) for first in range(16)))
            assert await _export(server, tenant, prefix="0") == FEW
            peak = process.peak_memory
            assert await _export(server, tenant, prefix="") == MANY
            assert process.peak_memory - peak < ALLOWED


async def _put(server: Server, tenant: str, numbers: range) -> None:
    for number in numbers:
        header = PutHeader(tenant_id=tenant, key=f"{number:04}", upload_id=str(uuid.uuid4()), metadata=METADATA)
        await server.storage.PutSmall(PutSmallRequest(header=header, data=b"x" * 500))


async def _export(server: Server, tenant: str, *, prefix: str) -> int:
    """How many objects there were."""
    async for response in stream(server, request(tenant, prefix=prefix)):
        if response.HasField("summary"):
            return response.summary.object_count
    raise AssertionError("no summary")
