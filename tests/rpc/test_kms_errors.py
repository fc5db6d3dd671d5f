"""What KMS says, through the real AWS client and a real channel: each failure by its name, on Put, Get and Export."""

import asyncio
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any

import grpc
import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, GetTenantRequest
from keystow_service import errors
from keystow_service.adapters import kms as kms_adapter
from keystow_service.adapters.kms import KmsPatience, open_kms
from rpc import rows_kms
from rpc.exports import export, request, untar
from rpc.rows_kms import REGION, USES, Row, Told
from rpc.wire import Failure, failure, get, put, told_by
from servers.in_process import Server, register
from servers.kms.keys import Key
from servers.kms.principals import CUSTOMER, PROVIDER
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import client_of
from servers.kms.situations import key_for
from servers.kms.states import State
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_DELAY = 60  # seconds; what a client is told to wait is no longer

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms(REGION) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(kms: FaithfulKms, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """With less patience than by default, and nothing that asks KMS by itself while a test runs."""
    with pytest.MonkeyPatch.context() as environment:
        patience = KmsPatience(connect=1.5, read=1.5, attempts=2)
        environment.setattr(kms_adapter, "open_kms", partial(open_kms, patience=patience))
        async with serving_on_kms(kms, tmp_path_factory.mktemp("data"), key_probe_interval=3600) as running:
            yield running


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _as_before(kms: FaithfulKms) -> AsyncIterator[None]:
    """After a test KMS and our credentials work again."""
    yield
    kms.faults.end()
    kms.hides_missing_keys = False
    kms.principals.add(PROVIDER)
    kms.principals.renew(PROVIDER)
    await kms.servers[REGION].stop()
    await kms.servers[REGION].start()


async def tenant_of(server: Server, kms: FaithfulKms, state: State = State.ENABLED) -> tuple[str, Key]:
    """A new tenant with a key of its own, which can get into that state."""
    tenant = f"tenant-{next(_numbers)}"
    key = key_for(kms, state, tenant, region=REGION)
    await register(server, tenant, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    return tenant, key


@pytest.mark.parametrize("row", [pytest.param(row, id=row.case) for row in rows_kms.rows()])
async def test_each_failure_of_kms_is_told(server: Server, kms: FaithfulKms, row: Row) -> None:
    """Code, reason, recovery, tenant, key, its state, AWS's request id, and a delay where one is known."""
    # Each call by a tenant that has no lease for it yet: nothing here depends on time.
    writer, reader = [await tenant_of(server, kms, row.state) for _ in range(2)]
    await put(server, reader[0], "key", b"content")
    for _, key in (writer, reader):
        done = row.situation(kms, key)
        if inspect.isawaitable(done):
            await done
    calls: dict[str, tuple[tuple[str, Key], Awaitable[Any]]] = {
        "Put": (writer, put(server, writer[0], "key", b"content")),
        "Get": (reader, get(server, reader[0], "key")),
        "Export": (reader, export(server, request(reader[0]))),
    }
    ended = await asyncio.gather(*(call for _, call in calls.values()), return_exceptions=True)
    for (method, ((tenant, key), _)), end in zip(calls.items(), ended, strict=True):
        if method in row.calls:
            assert isinstance(end, grpc.RpcError), method
            check(told_by(end), row.told, tenant, key, kms)


def check(failure: Failure, told: Told, tenant: str, key: Key, kms: FaithfulKms) -> None:
    """The whole status is as the row has it, and says nothing that AWS wrote."""
    assert (failure.code, failure.reason, failure.recovery) == (told.code, told.reason, told.recovery)
    metadata = dict(failure.metadata or {})
    assert metadata.pop("requestId")
    assert metadata.pop("recovery") == told.recovery
    assert (metadata.pop("tenantId"), metadata.pop("keyArn")) == (tenant, key.arn)
    assert metadata.pop("keyState", None) == told.key_state
    deletion_time = metadata.pop("deletionTime", None)
    assert deletion_time == (f"{key.deletion_date:%Y-%m-%dT%H:%M:%S+00:00}" if told.dated else None)
    request_id = metadata.pop("awsRequestId", None)
    asked = {each.request_id for each in kms.requests if each.key_id == key.arn and each.operation in USES}
    assert request_id in asked if told.answered else request_id is None
    assert set(metadata) <= {"objectKey", "uploadId"}
    assert (failure.delay is not None) is told.delay
    assert failure.delay is None or 0 < failure.delay <= MAX_DELAY
    assert "foreign" not in failure.message
    assert key.arn not in failure.message


async def test_every_error_of_kms_has_a_row() -> None:
    """Whoever adds one is reminded to show it at a client."""
    kinds: list[type[errors.KeystowError]] = [*errors.KeyRefusal.__subclasses__(), errors.WrappedKeyInvalidError]
    kinds += [errors.KmsUnavailableError, errors.KmsThrottledError, errors.ProviderCredentialsError]
    kinds += [errors.InternalError]
    assert {row.told.reason for row in rows_kms.rows()} == {kind.reason for kind in kinds}


async def test_the_providers_own_key(server: Server, kms: FaithfulKms) -> None:
    """Of tenants that bring none: its failure is told like any other, with its ARN."""
    tenant = await register(server, "provider-managed")
    answer = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant))
    key = kms[answer.tenant.kms_key_arn]
    key.disable()
    check(await failure(put(server, tenant, "key", b"content")), rows_kms.DISABLED, tenant, key, kms)
    key.enable()
    await put(server, tenant, "key", b"content")


async def test_another_encryption_context(server: Server, kms: FaithfulKms) -> None:
    """A service of another deployment asks in another context: KMS opens nothing for it."""
    tenant, key = await tenant_of(server, kms)
    await put(server, tenant, "key", b"content")
    async with serving_on_kms(kms, server.data_dir, deployment_id="another", key_probe_interval=3600) as other:
        for call in (get(other, tenant, "key"), export(other, request(tenant))):
            told = await failure(call)
            check(told, rows_kms.WRAPPED_KEY_INVALID, tenant, key, kms)
        theirs = [each for each in kms.requests if each.context.get("keystow:deployment") == "another"]
        assert {(each.operation, each.answer, each.message) for each in theirs} == {
            ("Decrypt", "InvalidCiphertextException", None)
        }
    assert (await get(server, tenant, "key")).data == b"content"


async def test_the_customers_own_switch(server: Server, kms: FaithfulKms) -> None:
    """Turned over the wire, with the customer's credentials: off, all fails; on, all works, old objects and new."""
    tenant, key = await tenant_of(server, kms)
    await put(server, tenant, "key", b"content")
    async with client_of(kms, CUSTOMER, REGION) as customer:
        await customer.disable_key(KeyId=key.arn)
        assert (await failure(get(server, tenant, "key"))).reason == "KMS_KEY_DISABLED"
        # The refusal of one use ends the lease of the other.
        assert (await failure(put(server, tenant, "new", b"new"))).reason == "KMS_KEY_DISABLED"
        assert (await failure(export(server, request(tenant)))).reason == "KMS_KEY_DISABLED"
        await customer.enable_key(KeyId=key.arn)
        await put(server, tenant, "new", b"new")
        assert untar(bytes((await export(server, request(tenant))).data))["key"] == b"content"
        await customer.schedule_key_deletion(KeyId=key.arn, PendingWindowInDays=7)
        await customer.cancel_key_deletion(KeyId=key.arn)
        assert (await get(server, tenant, "key")).data == b"content"  # under its lease
        await customer.enable_key(KeyId=key.arn)
        assert (await get(server, tenant, "new")).data == b"new"
