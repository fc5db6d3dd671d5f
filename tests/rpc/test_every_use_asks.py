"""A server with lease_bound = 0, through its channel: everything works, and a disabled key stops it at once."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, StatRequest
from keystow.v1.tenants_pb2 import GetTenantRequest
from rpc.customer import TENANT, Customer, customer_of_a_server
from rpc.exports import export, request
from rpc.interrupted import PART, begin, interrupted, resume
from rpc.wire import MIB, TIMEOUT, content, failure, get, put, received
from servers.in_process import NARROW_WINDOW, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(PART + 2 * MIB)


@pytest_asyncio.fixture(loop_scope="session")
async def customer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Customer]:
    """With an object stored."""
    async with customer_of_a_server(tmp_path_factory.mktemp("data"), lease_bound=0) as customer:
        await put(customer.server, TENANT, "key", DATA)
        yield customer


async def test_everything_works(customer: Customer) -> None:
    """Get, a Put that is resumed, and Export; and GetTenant tells the bound."""
    server = customer.server
    assert (await get(server, TENANT, "key")).data == DATA
    before = await interrupted(server, TENANT, DATA, PART, "resumed")
    last = before.progress[-1]
    after = await resume(server, before, last.resume_token)
    await after.send(DATA, last.persisted_size)
    assert (await after.end(len(DATA))).size == len(DATA)
    archive = await export(server, request(TENANT))
    assert archive.summary
    assert archive.summary.object_count == 2
    tenant = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant
    assert tenant.key_health.revocation_bound.ToSeconds() == 2


async def test_the_switch_works_at_once(customer: Customer) -> None:
    """The next segment of a running Get, a Put that waits for its client and every new call fail; and work again."""
    server, keyring, arn = customer
    running = await begin(server, TENANT, "other")
    await running.send(DATA)
    await running.told_of(PART)
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        stream = aiter(storage.Get(GetRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT))
        assert (await anext(stream)).header.length == len(DATA)
        keyring.disable(arn)
        plaintext = bytearray()
        assert (await failure(received(stream, plaintext))).reason == "KMS_KEY_DISABLED"
    assert len(plaintext) <= 2 * MIB  # what the transport had, and what it takes before it makes the stream wait
    assert (await failure(running.result())).reason == "KMS_KEY_DISABLED"
    for _ in range(2):
        stat = server.storage.Stat(StatRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT)
        assert (await failure(stat)).reason == "KMS_KEY_DISABLED"
    keyring.enable(arn)
    assert (await get(server, TENANT, "key")).data == DATA
