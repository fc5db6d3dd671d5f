"""The matrix of data centres and key regions, through a real channel, with a KMS in each of the five regions."""

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF, GetTenantRequest
from rpc.wire import failure, get, put
from servers.in_process import Server, register
from servers.kms.keys import Key, Kind
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.on_kms import REGIONS, serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = {"single-region": Kind(), "multi-region": Kind(multi_region=True)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms(*REGIONS.values()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(kms: FaithfulKms, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving_on_kms(kms, tmp_path_factory.mktemp("data"), key_probe_interval=3600) as running:
        yield running


async def choose(server: Server, tenant: str, key: Key, data_center: str) -> str:
    """Register a tenant with this key in this place."""
    fields = {"key_management": KEY_MANAGEMENT_SELF, "kms_key_arn": key.arn, "data_center": data_center}
    return await register(server, tenant, **fields)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("region", list(REGIONS.values()))
@pytest.mark.parametrize("data_center", REGIONS)
async def test_only_the_diagonal_registers(
    server: Server, kms: FaithfulKms, data_center: str, region: str, kind: str
) -> None:
    """A key of the place's region registers and is used there; any other is refused by name, and never asked for."""
    tenant = f"{data_center}-{region}-{kind}"
    key = kms.create_key(tenant, region=region, kind=KINDS[kind])
    if REGIONS[data_center] == region:
        await choose(server, tenant, key, data_center)
        await put(server, tenant, "key", b"content")
        assert (await get(server, tenant, "key")).data == b"content"
        assert {request.region for request in kms.requests if request.key_id == key.arn} == {region}
        return
    told = await failure(choose(server, tenant, key, data_center))
    assert (told.code, told.reason, told.recovery, told.violations) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "KMS_KEY_REGION_MISMATCH",
        "none",
        ("kms_key_arn",),
    )
    assert region in told.message
    assert REGIONS[data_center] in told.message
    assert told.metadata
    assert told.metadata["keyArn"] == key.arn
    assert [request for request in kms.requests if request.key_id == key.arn] == []
    unknown = await failure(server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant)))
    assert unknown.reason == "TENANT_NOT_FOUND"


async def test_a_replica_belongs_to_its_own_region(server: Server, kms: FaithfulKms) -> None:
    """It registers where it is itself, not where its primary is, and disabling the primary does not stop it."""
    primary = kms.create_key("replicated", region="us-east-1", kind=KINDS["multi-region"])
    replica = kms.replicate(primary, "eu-west-2")
    assert (await failure(choose(server, "replicated", replica, "us"))).reason == "KMS_KEY_REGION_MISMATCH"
    await choose(server, "replicated", replica, "uk")
    primary.disable()
    await put(server, "replicated", "key", b"content")
    assert (await get(server, "replicated", "key")).data == b"content"
