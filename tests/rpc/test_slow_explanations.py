"""A refusal of KMS stops a running restore before anybody knows more about it: through a real server and channel."""

import asyncio
from pathlib import Path

import pytest

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from rpc.wire import MIB, TIMEOUT, content, failure, get, put, received
from servers.in_process import NARROW_WINDOW, connected, register
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(24 * MIB)  # more than is read ahead


async def test_a_running_get_ends_while_its_refusal_is_looked_into(tmp_path: Path) -> None:
    """From when KMS has refused no further segment is opened, though DescribeKey is not answered."""
    settings = {"key_probe_interval": 3600, "lease_refresh": 0.05, "lease_bound": 60}
    async with faithful_kms("us-east-1") as kms, serving_on_kms(kms, tmp_path, **settings) as server:
        key = kms.create_key("acme")
        await register(server, "acme", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        await put(server, "acme", "key", DATA)
        async with connected(server.address, NARROW_WINDOW) as channel:
            storage = storage_pb2_grpc.StorageServiceStub(channel)
            stream = aiter(storage.Get(GetRequest(tenant_id="acme", key="key"), timeout=TIMEOUT))
            assert (await anext(stream)).header.length == len(DATA)
            gate = kms.faults.hold("DescribeKey")
            key.disable()
            async with asyncio.timeout(TIMEOUT):
                await gate.until(held=1)  # the Get renews its lease while it waits for its client
            plaintext = bytearray()
            told = await failure(received(stream, plaintext))
            gate.open()
    assert told.reason == "KMS_KEY_DISABLED"
    assert DATA.startswith(plaintext)
    assert len(plaintext) < 4 * MIB


@pytest.mark.parametrize("call", ["Put", "Get"])
async def test_a_key_that_is_enabled_while_its_refusal_is_looked_into(tmp_path: Path, call: str) -> None:
    """Whoever comes after the refusal asks KMS anew, and is not told of what was before."""
    settings = {"key_probe_interval": 3600, "lease_bound": 0}
    async with faithful_kms("us-east-1") as kms, serving_on_kms(kms, tmp_path, **settings) as server:
        key = kms.create_key("acme")
        await register(server, "acme", key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
        await put(server, "acme", "key", DATA[:MIB])

        async def use() -> None:
            if call == "Put":
                await put(server, "acme", "another", DATA[:MIB])
            else:
                await get(server, "acme", "key")

        gate = kms.faults.hold("DescribeKey")
        key.disable()
        refused = asyncio.create_task(failure(use()))
        async with asyncio.timeout(TIMEOUT):
            await gate.until(held=1)
        key.enable()
        await use()
        gate.open()
        assert (await refused).reason == "KMS_KEY_DISABLED"
