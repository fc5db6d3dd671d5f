"""Tenants through a real channel: registered once and for good, with a key that has worked."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from keystow.v1.tenants_pb2 import (
    KEY_MANAGEMENT_PROVIDER,
    KEY_MANAGEMENT_SELF,
    KEY_STATE_ENABLED,
    KEY_STATE_UNSPECIFIED,
    GetTenantRequest,
    KeyCheck,
    ListDataCentersRequest,
    ListTenantsRequest,
    RegisterTenantRequest,
    RegisterTenantResponse,
    Tenant,
)
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.model import KeyArn
from rpc.rows_tenants import REGIONS
from rpc.wire import Failure, failure, put, told_by
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHECKS = (
    "arn.syntax",
    "arn.region",
    "arn.unused",
    "key.describe",
    "grant.generate",
    "grant.decrypt",
    "policy.confined",
)


@pytest.fixture(scope="module")
def keyring(server: Server) -> KeyringAdmin:
    """The customers' side of the server's keyring."""
    folder = server.data_dir / "keyring"
    return KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())


@pytest.fixture(scope="module")
def ids() -> Iterator[str]:
    """Tenant ids that no test has used."""
    return (f"customer-{number}" for number in range(1000))


def self_managed(
    tenant_id: str, arn: KeyArn, *, data_center: str = "us", display_name: str = ""
) -> RegisterTenantRequest:
    """The choice of a key of the tenant's own."""
    return RegisterTenantRequest(
        tenant_id=tenant_id,
        key_management=KEY_MANAGEMENT_SELF,
        kms_key_arn=arn.text,
        confirm_permanent=True,
        data_center=data_center,
        display_name=display_name,
    )


async def refused(server: Server, request: RegisterTenantRequest) -> Failure:
    """How a registration fails."""
    return await failure(server.tenants.RegisterTenant(request))


async def is_registered(server: Server, tenant_id: str) -> bool:
    """Whether the tenant is among all."""
    answer = await server.tenants.ListTenants(ListTenantsRequest(page_size=1000))
    return tenant_id in {each.tenant_id for each in answer.tenants}


@pytest.mark.parametrize("data_center", REGIONS)
async def test_a_key_of_the_data_centres_region_registers(
    server: Server, keyring: KeyringAdmin, ids: Iterator[str], data_center: str
) -> None:
    """The diagonal of the matrix; test_bad_input.py has the rest. The answer names what was checked."""
    tenant_id = next(ids)
    arn = keyring.create(REGIONS[data_center], tenants=[tenant_id]).arn
    answer = await server.tenants.RegisterTenant(
        self_managed(tenant_id, arn, data_center=data_center, display_name="Acme Österreich")
    )
    assert (answer.tenant.kms_key_arn, answer.tenant.data_center) == (arn.text, data_center)
    assert answer.tenant.display_name == "Acme Österreich"
    assert {check.name: check.outcome for check in answer.checks} == dict.fromkeys(CHECKS, KeyCheck.OUTCOME_PASSED)
    await put(server, tenant_id, "key", b"content")


@pytest.mark.parametrize("data_center", REGIONS)
async def test_provider_managed_tenants_get_the_key_of_their_region(
    server: Server, ids: Iterator[str], data_center: str
) -> None:
    """Nothing for the customer to configure; the wrapping key is shown all the same."""
    one, other = [await register(server, next(ids), data_center=data_center) for _ in range(2)]
    tenants = [(await server.tenants.GetTenant(GetTenantRequest(tenant_id=each))).tenant for each in (one, other)]
    assert tenants[0].kms_key_arn == tenants[1].kms_key_arn
    assert KeyArn.parse(tenants[0].kms_key_arn).region == REGIONS[data_center]
    assert {each.key_management for each in tenants} == {KEY_MANAGEMENT_PROVIDER}


async def test_the_same_choice_again_is_the_same_tenant(
    server: Server, keyring: KeyringAdmin, ids: Iterator[str]
) -> None:
    """A repeated registration answers what stands, also when its key is disabled by then."""
    tenant_id = next(ids)
    arn = keyring.create("us-east-1", tenants=[tenant_id]).arn
    first = await server.tenants.RegisterTenant(self_managed(tenant_id, arn))
    keyring.disable(arn)
    again = await server.tenants.RegisterTenant(self_managed(tenant_id, arn))
    assert choice(again.tenant) == choice(first.tenant)


def choice(tenant: Tenant) -> tuple[object, ...]:
    """What never changes."""
    time = tenant.create_time.ToNanoseconds()
    return tenant.tenant_id, tenant.display_name, tenant.kms_key_arn, tenant.data_center, tenant.key_management, time


async def test_another_choice_is_refused_for_good(server: Server, keyring: KeyringAdmin, ids: Iterator[str]) -> None:
    """Neither key, nor who manages it, nor place, nor name can be changed, and the tenant stays as it was."""
    tenant_id = next(ids)
    arn = keyring.create("us-east-1", tenants=[tenant_id]).arn
    first = await server.tenants.RegisterTenant(self_managed(tenant_id, arn, display_name="Acme"))
    provider_managed = RegisterTenantRequest(
        tenant_id=tenant_id,
        display_name="Acme",
        key_management=KEY_MANAGEMENT_PROVIDER,
        data_center="us",
        confirm_permanent=True,
    )
    other_key = keyring.create("us-east-1", tenants=[tenant_id]).arn
    key_elsewhere = keyring.create("eu-west-1", tenants=[tenant_id]).arn
    for request in (
        provider_managed,
        self_managed(tenant_id, other_key, display_name="Acme"),
        self_managed(tenant_id, key_elsewhere, display_name="Acme", data_center="eu"),
        self_managed(tenant_id, arn, display_name="Umbrella"),
    ):
        told = await refused(server, request)
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ALREADY_EXISTS, "TENANT_EXISTS", "none")
    standing = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant_id))
    assert choice(standing.tenant) == choice(first.tenant)


async def test_a_key_serves_one_tenant(server: Server, keyring: KeyringAdmin, ids: Iterator[str]) -> None:
    """The ARN of another tenant's key is refused before it is tried."""
    owner, other = next(ids), next(ids)
    arn = keyring.create("us-east-1", tenants=[owner, other]).arn
    await server.tenants.RegisterTenant(self_managed(owner, arn))
    told = await refused(server, self_managed(other, arn))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ALREADY_EXISTS, "KMS_KEY_IN_USE", "none")
    assert owner not in f"{told.message}{told.metadata}"
    assert not await is_registered(server, other)


@pytest.mark.parametrize(
    ("state", "failed"),
    [
        ("disabled", "key.describe"),
        ("pending deletion", "key.describe"),
        ("of another tenant", "grant.generate"),
        ("of any tenant", "policy.confined"),
    ],
)
async def test_an_unusable_key_is_refused_with_the_check_it_failed(
    server: Server, keyring: KeyringAdmin, ids: Iterator[str], state: str, failed: str
) -> None:
    """FAILED_PRECONDITION, one violation for the failed check, the key named; nothing is registered."""
    tenant_id = next(ids)
    serves = {"of another tenant": "umbrella", "of any tenant": "*"}.get(state, tenant_id)
    arn = keyring.create("us-east-1", tenants=[serves]).arn
    if state == "disabled":
        keyring.disable(arn)
    elif state == "pending deletion":
        keyring.schedule_deletion(arn, days=7)
    told = await refused(server, self_managed(tenant_id, arn))
    assert (told.code, told.reason, told.recovery) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "KMS_KEY_UNUSABLE",
        "wait",
    )
    assert told.violations == (failed,)
    assert failed in told.message
    assert told.metadata
    assert (told.metadata["keyArn"], told.metadata["tenantId"]) == (arn.text, tenant_id)
    assert not await is_registered(server, tenant_id)


async def test_of_two_choices_at_once_one_stands(server: Server, keyring: KeyringAdmin, ids: Iterator[str]) -> None:
    """A race for a tenant, or for a key, has one winner; the losers are told why."""
    tenant_id = next(ids)
    keys = [keyring.create("us-east-1", tenants=[tenant_id]).arn for _ in range(4)]
    won, lost = await race(server, [self_managed(tenant_id, arn) for arn in keys])
    assert len(won) == 1
    assert {told.reason for told in lost} == {"TENANT_EXISTS"}
    standing = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant_id))
    assert choice(standing.tenant) == choice(won[0].tenant)
    rivals = [next(ids) for _ in range(4)]
    arn = keyring.create("us-east-1", tenants=rivals).arn
    won, lost = await race(server, [self_managed(rival, arn) for rival in rivals])
    assert len(won) == 1
    assert {told.reason for told in lost} == {"KMS_KEY_IN_USE"}


async def race(
    server: Server, requests: list[RegisterTenantRequest]
) -> tuple[list[RegisterTenantResponse], list[Failure]]:
    """All at once: the answers, and the failures."""

    async def register_one(request: RegisterTenantRequest) -> RegisterTenantResponse:
        return await server.tenants.RegisterTenant(request)

    outcomes = await asyncio.gather(*map(register_one, requests), return_exceptions=True)
    won = [outcome for outcome in outcomes if isinstance(outcome, RegisterTenantResponse)]
    return won, [told_by(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]


async def test_key_health_shows_the_last_use(server: Server, keyring: KeyringAdmin, ids: Iterator[str]) -> None:
    """Unknown before the first use; then enabled, or why not; always with the bound of a revocation."""
    tenant_id = next(ids)
    arn = keyring.create("us-east-1", tenants=[tenant_id]).arn
    registered = (await server.tenants.RegisterTenant(self_managed(tenant_id, arn))).tenant
    assert registered.key_health.state == KEY_STATE_UNSPECIFIED
    assert registered.key_health.revocation_bound.ToSeconds() == 60
    await put(server, tenant_id, "key", b"content")
    used = (await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant_id))).tenant.key_health
    assert (used.state, used.reason) == (KEY_STATE_ENABLED, "")
    assert used.last_success_time.ToNanoseconds() > 0


async def test_list_tenants_pages_through_all_in_order(server: Server, ids: Iterator[str]) -> None:
    """Every tenant once, by id, and the last page has no token."""
    for _ in range(3):
        await register(server, next(ids))
    everything = await server.tenants.ListTenants(ListTenantsRequest(page_size=1000))
    expected = [each.tenant_id for each in everything.tenants]
    assert expected == sorted(expected)
    assert everything.next_page_token == ""
    for size in (1, 2, len(expected) - 1, len(expected)):
        pages = [page async for page in tenant_pages(server, size)]
        assert [tenant_id for page in pages for tenant_id in page] == expected
        assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
        assert pages[-1]


async def tenant_pages(server: Server, size: int) -> AsyncIterator[list[str]]:
    """Page by page, the ids."""
    request = ListTenantsRequest(page_size=size)
    while True:
        answer = await server.tenants.ListTenants(request)
        yield [each.tenant_id for each in answer.tenants]
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


async def test_list_data_centers_names_places_and_regions(server: Server) -> None:
    """The five of the product, with the region a key must be in."""
    answer = await server.tenants.ListDataCenters(ListDataCentersRequest())
    assert {each.name: each.region for each in answer.data_centers} == REGIONS
