"""Two replicas asked at once to bind one tenant, or one key: on SQLite and on PostgreSQL, and after restarts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import (
    KEY_MANAGEMENT_PROVIDER,
    KEY_MANAGEMENT_SELF,
    GetTenantRequest,
    ListTenantsRequest,
    RegisterTenantRequest,
    RegisterTenantResponse,
)
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from rpc.wire import failure, told_by
from servers.in_process import Server, serving
from servers.postgresql import PostgresqlServer, new_database

pytestmark = pytest.mark.asyncio(loop_scope="session")

Replicas: TypeAlias = Callable[[], Any]  # each call is a restart: an async context of two servers


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest) -> str:
    """What the replicas share."""
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def replicas(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Replicas]:
    """Start two, over one registry and one keyring."""
    async with AsyncExitStack() as stack:
        settings = {}
        if database == "PostgreSQL":
            postgresql: PostgresqlServer = request.getfixturevalue("postgresql")
            settings["registry_url"] = postgresql.url(await stack.enter_async_context(new_database(postgresql)))

        @asynccontextmanager
        async def start() -> AsyncIterator[tuple[Server, Server]]:
            async with serving(tmp_path, **settings) as one, serving(tmp_path, **settings) as other:
                yield one, other

        yield start


@pytest.fixture
def keyring(tmp_path: Path) -> KeyringAdmin:
    """The customers' side."""
    folder = tmp_path / "keyring"
    return KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())


def own(tenant_id: str, arn: str) -> RegisterTenantRequest:
    """The choice of a key."""
    return RegisterTenantRequest(
        tenant_id=tenant_id,
        key_management=KEY_MANAGEMENT_SELF,
        kms_key_arn=arn,
        data_center="us",
        confirm_permanent=True,
    )


async def race(
    servers: Sequence[Server], choices: Sequence[RegisterTenantRequest]
) -> tuple[Mapping[int, RegisterTenantResponse], list[str]]:
    """All at once, by turns at each server: the answers by choice, and the reasons of the failures."""

    async def register(number: int, choice: RegisterTenantRequest) -> RegisterTenantResponse:
        return await servers[number % len(servers)].tenants.RegisterTenant(choice)

    outcomes = await asyncio.gather(*(register(*each) for each in enumerate(choices)), return_exceptions=True)
    won = {number: each for number, each in enumerate(outcomes) if isinstance(each, RegisterTenantResponse)}
    return won, [told_by(each).reason for each in outcomes if isinstance(each, BaseException)]


async def test_one_choice_for_a_tenant(replicas: Replicas, keyring: KeyringAdmin) -> None:
    """Of many different choices at two replicas one stands, at both of them, also after a restart."""
    async with replicas() as servers:
        keys = [keyring.create("us-east-1", tenants=["acme"]).arn.text for _ in range(5)]
        provided = RegisterTenantRequest(
            tenant_id="acme", key_management=KEY_MANAGEMENT_PROVIDER, data_center="us", confirm_permanent=True
        )
        choices = [*(own("acme", arn) for arn in keys), provided]
        won, lost = await race(servers, choices)
        assert lost == ["TENANT_EXISTS"] * 5
    [(winner, answer)] = won.items()
    async with replicas() as servers:
        for server in servers:
            standing = (await server.tenants.GetTenant(GetTenantRequest(tenant_id="acme"))).tenant
            assert standing == answer.tenant
            assert (await server.tenants.RegisterTenant(choices[winner])).tenant == standing
            for number in won.keys() ^ range(6):
                assert (await failure(server.tenants.RegisterTenant(choices[number]))).reason == "TENANT_EXISTS"


async def test_one_tenant_for_a_key(replicas: Replicas, keyring: KeyringAdmin) -> None:
    """Of many tenants that bring one key to two replicas one gets it, for good, also after a restart."""
    rivals = [f"rival-{number}" for number in range(6)]
    async with replicas() as servers:
        arn = keyring.create("us-east-1", tenants=rivals).arn.text
        won, lost = await race(servers, [own(rival, arn) for rival in rivals])
        assert lost == ["KMS_KEY_IN_USE"] * 5
    [winner] = won
    async with replicas() as servers:
        for server in servers:
            listed = (await server.tenants.ListTenants(ListTenantsRequest())).tenants
            assert [each.tenant_id for each in listed] == [rivals[winner]]
            for rival in set(rivals) - {rivals[winner]}:
                assert (await failure(server.tenants.RegisterTenant(own(rival, arn)))).reason == "KMS_KEY_IN_USE"


async def test_the_same_choice_at_both(replicas: Replicas, keyring: KeyringAdmin) -> None:
    """Whoever asks for what stands by then gets it: a retry at another replica is no failure."""
    async with replicas() as servers:
        arn = keyring.create("us-east-1", tenants=["acme"]).arn.text
        won, lost = await race(servers, [own("acme", arn)] * 6)
        assert lost == []
        assert len({each.tenant.create_time.ToNanoseconds() for each in won.values()}) == 1
