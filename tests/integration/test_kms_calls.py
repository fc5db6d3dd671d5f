"""How many requests to KMS ten thousand small objects of one tenant cost: they grow with time, not with objects."""

import asyncio
import math
from pathlib import Path

import pytest

from keystow.v1.storage_pb2 import PutSmallRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.envelope import header as object_header
from keystow_service.envelope.layout import HEADER_LENGTH
from rpc.exports import request, stream
from rpc.wire import header
from servers.in_process import Server, register
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

TENANT = "acme"
OBJECTS = 10_000
AT_ONCE = 32
REFRESH = 2.0  # seconds; short, so that there are renewals to count


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="session")
async def test_requests_grow_with_time(tmp_path: Path) -> None:
    """Writing and reading all of them: two in each refresh interval at the most, and a Decrypt for each data key."""
    async with (
        faithful_kms() as kms,
        serving_on_kms(kms, tmp_path, lease_refresh=REFRESH, lease_bound=60, key_probe_interval=3600) as server,
    ):
        key = kms.create_key(TENANT)
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        before = len(kms.requests)  # of the registration
        await write_all(server)
        exported = 0
        async for response in stream(server, request(TENANT)):
            exported += response.WhichOneof("message") == "entry"
        used = kms.requests[before:]
        data_keys = {wrapped_key(path) for path in server.stored(TENANT)}
    assert exported == OBJECTS
    assert {each.operation for each in used} == {"GenerateDataKey", "Decrypt"}
    intervals = math.ceil((used[-1].time - used[0].time).total_seconds() / REFRESH) + 1
    assert len(used) <= 2 * intervals + len(data_keys)
    assert len(data_keys) <= intervals


async def write_all(server: Server) -> None:
    """Some at once, as connectors do."""
    numbers = iter(range(OBJECTS))

    async def connector() -> None:
        for number in numbers:
            head = header(TENANT, f"{number:05}").header
            await server.storage.PutSmall(PutSmallRequest(header=head, data=b"%d" % number))

    async with asyncio.TaskGroup() as connectors:
        for _ in range(AT_ONCE):
            connectors.create_task(connector())


def wrapped_key(path: Path) -> bytes:
    """Of a stored object."""
    with path.open("rb") as stored:
        return object_header.parse(stored.read(HEADER_LENGTH)).wrap.wrapped_key
