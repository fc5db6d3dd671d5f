"""Plaintext data keys leave the memory with the streams that held them, however these end."""

import gc
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, ListRequest, StatRequest
from keystow_service.envelope.reader import SegmentOpener
from keystow_service.envelope.writer import PartWriter
from keystow_service.keys.held_key import HeldKey
from rpc.customer import TENANT, Customer, customer_of_a_server
from rpc.exports import export, request
from rpc.interrupted import PART, begin
from rpc.wire import MIB, content, failure, finish, get, put, until
from servers.in_process import NARROW_WINDOW, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(PART + 2 * MIB)


@pytest_asyncio.fixture(loop_scope="session")
async def customer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Customer]:
    """With an object stored. The server's own cache is another matter: tests/keys/test_idle_keys.py."""
    async with customer_of_a_server(tmp_path_factory.mktemp("data"), lease_refresh=0.1, lease_bound=60) as customer:
        await put(customer.server, TENANT, "key", DATA)
        yield customer


@pytest.fixture
def _without_collector() -> Iterator[None]:
    """What is in a cycle of references would otherwise be gone at some time."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> int:
    """How much in this process keeps a data key, or what was derived from one, for one stream."""
    return sum(isinstance(each, HeldKey | SegmentOpener | PartWriter) for each in gc.get_objects())


@pytest.mark.usefixtures("_without_collector")
async def test_no_stream_leaves_a_key_behind(customer: Customer) -> None:
    """Whole, cut off, cancelled, refused: of Get, Put and Export."""
    server, keyring, arn = customer

    async def nothing_left() -> None:
        await server.storage.List(ListRequest(tenant_id=TENANT))  # grpc.aio keeps the newest call until the next one
        await until(lambda: held() == 0)

    await get(server, TENANT, "key")
    await server.storage.Stat(StatRequest(tenant_id=TENANT, key="key"))
    await export(server, request(TENANT))
    await put(server, TENANT, "other", DATA)
    await nothing_left()
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        for call in (storage.Get(GetRequest(tenant_id=TENANT, key="key")), storage.Export(request(TENANT))):
            await anext(aiter(call))
            call.cancel()
    cut = await begin(server, TENANT, "cut")
    await cut.send(DATA)
    await cut.told_of(PART)
    cut.call.cancel()
    await nothing_left()
    damaged = await begin(server, TENANT, "damaged")
    await damaged.send(DATA)
    await damaged.call.write(finish(1))
    assert (await failure(damaged.result())).reason == "SIZE_MISMATCH"
    refused = await begin(server, TENANT, "refused")
    await refused.send(DATA)
    await refused.told_of(PART)
    keyring.disable(arn)
    assert (await failure(refused.result())).reason == "KMS_KEY_DISABLED"
    for use in (get(server, TENANT, "key"), export(server, request(TENANT))):
        assert (await failure(use)).reason == "KMS_KEY_DISABLED"
    await nothing_left()
