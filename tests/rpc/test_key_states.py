"""The customer's switch through a real channel: a key that may not be used stops Put, Get and Export, running ones too.

Leases here are renewed at nearly every use, so that a test need not wait for the half minute of the default.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import (
    ERROR_POLICY_CONTINUE,
    ERROR_POLICY_STOP,
    WRITE_MODE_OVERWRITE,
    DeleteRequest,
    ErrorPolicy,
    GetRequest,
    ListRequest,
    PutRequest,
    PutResponse,
    StatRequest,
)
from keystow.v1.tenants_pb2 import KEY_STATE_DISABLED, KEY_STATE_ENABLED, GetTenantRequest
from rpc.customer import TENANT, Customer, customer_of_a_server
from rpc.exports import Export, drained, export, request
from rpc.wire import (
    MIB,
    TIMEOUT,
    body,
    content,
    failure,
    get,
    header,
    pieces_of,
    put,
    received,
    refused,
    until,
)
from servers.in_process import NARROW_WINDOW, Server, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(24 * MIB)  # more than is read ahead


@pytest_asyncio.fixture(loop_scope="session")
async def customer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Customer]:
    """With an object stored."""
    data_dir = tmp_path_factory.mktemp("data")
    async with customer_of_a_server(data_dir, lease_refresh=0.05, lease_bound=30) as customer:
        await put(customer.server, TENANT, "key", DATA, size=len(DATA))
        yield customer


def stat(server: Server) -> Awaitable[Any]:
    """A use of the key to open."""
    return server.storage.Stat(StatRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT)


def put_anew(server: Server) -> Awaitable[Any]:
    """A use of the key to seal."""
    return put(server, TENANT, header(TENANT, "").header.upload_id, b"x")


STATES: dict[str, tuple[Callable[[Customer], object], str]] = {
    "disabled": (lambda customer: customer.keyring.disable(customer.arn), "KMS_KEY_DISABLED"),
    "pending deletion": (
        lambda customer: customer.keyring.schedule_deletion(customer.arn, days=7),
        "KMS_KEY_PENDING_DELETION",
    ),
}


@pytest.mark.parametrize("state", STATES)
async def test_the_switch_stops_every_use_and_starts_it_again(customer: Customer, state: str) -> None:
    """Put, Get, Stat and Export fail by the key's state, for the customer to act on; List works; nothing is lost."""
    server, keyring, arn = customer
    switch_off, reason = STATES[state]
    switch_off(customer)
    await refused(lambda: stat(server))
    for use in (stat(server), get(server, TENANT, "key"), put_anew(server), export(server, request(TENANT))):
        told = await failure(use)
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.FAILED_PRECONDITION, reason, "wait")
        assert told.metadata
        assert told.metadata["keyArn"] == arn.text
    listed = await server.storage.List(ListRequest(tenant_id=TENANT))
    assert "key" in {each.key for each in listed.objects}
    if state == "pending deletion":
        keyring.cancel_deletion(arn)
    keyring.enable(arn)
    assert (await get(server, TENANT, "key")).data == DATA
    await put_anew(server)


async def test_key_health_tells_why(customer: Customer) -> None:
    """The tenant shows the state that the last use met, and since when; and that it is over."""
    server, keyring, arn = customer
    keyring.disable(arn)
    await refused(lambda: stat(server))
    health = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health
    assert (health.state, health.reason) == (KEY_STATE_DISABLED, "KMS_KEY_DISABLED")
    assert health.last_success_time.ToNanoseconds() < health.since_time.ToNanoseconds()
    keyring.enable(arn)
    await stat(server)
    health = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health
    assert (health.state, health.reason) == (KEY_STATE_ENABLED, "")


async def test_a_pending_deletion_tells_its_date(customer: Customer) -> None:
    """Whoever is refused, and whoever asks for the tenant, is told until when the deletion can be cancelled."""
    server, keyring, arn = customer
    date = keyring.schedule_deletion(arn, days=7).deletion_time
    assert date is not None
    told = await refused(lambda: stat(server))
    assert told.metadata
    assert told.metadata["deletionTime"] == date.isoformat(timespec="seconds")
    health = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT))).tenant.key_health
    assert health.deletion_time.ToDatetime(date.tzinfo) == date.replace(microsecond=0)


async def test_a_running_get_ends(customer: Customer) -> None:
    """What is read ahead is ciphertext: after the switch no further segment is opened."""
    server, keyring, arn = customer
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        stream = aiter(storage.Get(GetRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT))
        assert (await anext(stream)).header.length == len(DATA)
        keyring.disable(arn)
        await refused(lambda: stat(server))
        plaintext = bytearray()
        told = await failure(received(stream, plaintext))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_DISABLED")
    assert DATA.startswith(plaintext)
    assert len(plaintext) < 4 * MIB


@pytest.mark.parametrize("policy", [ERROR_POLICY_STOP, ERROR_POLICY_CONTINUE])
@pytest.mark.parametrize("objects", ["a large one", "small ones"])
async def test_a_running_export_ends(customer: Customer, objects: str, policy: ErrorPolicy.ValueType) -> None:
    """Objects opened ahead are ciphertext, too: after the switch no further byte is sent, whatever the error policy."""
    server, keyring, arn = customer
    prefix = "key" if objects == "a large one" else "small/"
    if prefix == "small/":
        for number in range(60):  # of which 16 are opened ahead
            await put(server, TENANT, f"{prefix}{number}", DATA[: MIB // 4], write_mode=WRITE_MODE_OVERWRITE)
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        responses = aiter(storage.Export(request(TENANT, prefix=prefix, on_error=policy), timeout=TIMEOUT))
        taken = Export()
        taken.take(await anext(responses))
        keyring.disable(arn)
        await refused(lambda: stat(server))
        told = await failure(drained(responses, taken))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_DISABLED")
    assert len(taken.data) < 4 * MIB


async def test_a_running_put_ends(customer: Customer) -> None:
    """A Put that waits for its client ends as soon as KMS has refused, not with the next chunk, and leaves nothing."""
    server, keyring, arn = customer
    call: grpc.aio.StreamStreamCall[PutRequest, PutResponse] = server.storage.Put(timeout=TIMEOUT)
    messages = list(body(pieces_of(DATA[: 9 * MIB])))
    await call.write(header(TENANT, "running"))
    for message in messages[:-1]:
        await call.write(message)
    await until(lambda: server.unfinished() != [])
    keyring.disable(arn)
    await refused(lambda: put_anew(server))
    told = await failure(call.read())
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_DISABLED")
    assert server.unfinished() == []
    keyring.enable(arn)
    assert (await failure(get(server, TENANT, "running"))).reason == "OBJECT_NOT_FOUND"


async def test_a_customer_can_always_delete(customer: Customer) -> None:
    """Delete needs no key."""
    server, keyring, arn = customer
    keyring.disable(arn)
    await refused(lambda: stat(server))
    await server.storage.Delete(DeleteRequest(tenant_id=TENANT, key="key"))
    assert server.stored(TENANT) == []


async def test_a_switch_at_any_moment_is_told(customer: Customer) -> None:
    """Also where KMS refuses while the first message is on its way: no call is left without its status."""
    server, keyring, arn = customer
    for number in range(40):
        key = f"small {number}"
        keyring.enable(arn)
        await put(server, TENANT, key, b"x" * 1000)
        await get(server, TENANT, key)
        keyring.disable(arn)
        async with asyncio.timeout(20):
            assert (await refused(partial(get, server, TENANT, key))).reason == "KMS_KEY_DISABLED"
