"""Whose share of the quota a request to KMS takes, how urgent it is, and whom its audit record names."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from audit.writing import entries_of, open_log
from clock import FakeClock
from keystow_service.acting import PROBING, Acting, Urgency, acting
from keystow_service.adapters.audit.log import AuditPolicy
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.kms import KmsPatience, open_kms
from keystow_service.adapters.local_store import open_local_store
from keystow_service.adapters.registry import SqlRegistry, open_registry
from keystow_service.errors import KmsKeyDisabledError
from keystow_service.keys.audited import AuditedKeyService
from keystow_service.keys.checks import KeyChecks
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook
from keystow_service.keys.kms_quota import QuotaPolicy
from keystow_service.keys.kms_turns import KmsTurns
from keystow_service.keys.lease import LeasePolicy
from keystow_service.keys.onboarding import CheckCommand, CheckKey, RegisterCommand, RegisterTenant
from keystow_service.keys.probing import KeyProber, ProbePolicy
from keystow_service.keys.rationed import RationedKeyService
from keystow_service.model import Caller, DataCenter, KeyArn, KeyManagement, TenantId
from keystow_service.ports import AuditLog, KeyService, Site
from servers.kms.documents import denying
from servers.kms.keys import Key
from servers.kms.principals import PROVIDER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import session_of

REGION = "us-east-1"
ACME = TenantId("acme")


class WatchedTurns(KmsTurns):
    """Shows whose turns are taken, and how urgently."""

    def __init__(self) -> None:
        super().__init__(QuotaPolicy(), patience=30.0)
        self.taken: list[tuple[str, Urgency]] = []

    async def take(self, arn: KeyArn, tenant: str, urgency: Urgency) -> None:
        self.taken.append((tenant, urgency))
        await super().take(arn, tenant, urgency)


class Service:
    """What a server has around KMS."""

    def __init__(
        self, kms: FaithfulKms, site: Site, registry: SqlRegistry, turns: WatchedTurns, log: AuditLog, audit: Path
    ) -> None:
        self.kms, self.site, self.registry, self.turns = kms, site, registry, turns
        self._log, self._audit = log, audit
        self.sites = {"us": site}
        self.checks = KeyChecks(self.sites, registry, "tests", allow_broad_key_policies=False)
        self.book = KeyHealthBook(SystemClock(), lambda *_: None)
        self.keys = DataKeys(self.sites, "tests", SystemClock(), LeasePolicy(), self.book)

    async def register(self, management: KeyManagement) -> Key:
        key = self.kms.create_key(ACME)
        arn = key.arn if management is KeyManagement.SELF else ""
        register = RegisterTenant(self.sites, self.registry, self.checks, "tests", SystemClock())
        await register(RegisterCommand(ACME, "", management, arn, "us"))
        return key

    def prober(self, clock: FakeClock) -> KeyProber:
        acting.set(PROBING)
        records = self.registry.key_health
        return KeyProber(self.site, self.keys, self.book, records, clock, ProbePolicy(), lambda: 0.5)

    async def audited(self) -> list[str]:
        """The tenants of the requests to KMS, as the audit log has them."""
        await self._log.durable()
        return [entry["tenant"] for entry in entries_of(self._audit, "kms")]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        kms = await stack.enter_async_context(faithful_kms(REGION))
        audit = await stack.enter_async_context(open_log(tmp_path / "audit", policy=AuditPolicy(refuse=True)))
        turns = WatchedTurns()

        def around(keys: KeyService) -> KeyService:
            return RationedKeyService(AuditedKeyService(keys, audit), turns)

        opening = open_kms(
            REGION,
            session=session_of(),
            endpoint=kms.endpoints[REGION],
            patience=KmsPatience(attempts=1),
            around=around,
        )
        keys = await stack.enter_async_context(opening)
        store = await stack.enter_async_context(
            open_local_store(tmp_path / "store", parts_in_flight=1, clock=SystemClock())
        )
        registry = await stack.enter_async_context(open_registry(f"sqlite+aiosqlite:///{tmp_path}/registry.db"))
        provider_key = KeyArn.parse(kms.create_key(ACME, account=PROVIDER_ACCOUNT).arn)
        site = Site(DataCenter("us", "US", REGION), store, keys, provider_key)
        service = Service(kms, site, registry, turns, audit, tmp_path / "audit")
        stack.push_async_callback(service.keys.aclose)
        acting.set(Acting(Caller("anonymous"), "test"))
        yield service


async def checking(service: Service) -> None:
    await CheckKey(service.sites, service.checks)(CheckCommand(ACME, service.kms.create_key(ACME).arn, "us"))


async def registering(service: Service) -> None:
    await service.register(KeyManagement.SELF)


async def registering_with_the_providers(service: Service) -> None:
    await service.register(KeyManagement.PROVIDER)


@pytest.mark.parametrize(
    ("trying", "requests"),
    [(checking, 7), (registering, 7), (registering_with_the_providers, 2)],
)
async def test_a_key_that_is_tried(
    service: Service, trying: Callable[[Service], Awaitable[None]], requests: int
) -> None:
    """All of it is at the cost of the tenant who wants it, in whose context ever, and goes before no restore."""
    await trying(service)
    assert service.turns.taken == [(ACME, Urgency.BACKUP)] * requests
    assert await service.audited() == [ACME] * requests


async def test_a_refusal_that_is_explained(service: Service) -> None:
    """DescribeKey has no context, and is its tenant's all the same."""
    key = await service.register(KeyManagement.SELF)
    del service.turns.taken[:]
    key.disable()
    with pytest.raises(KmsKeyDisabledError):
        await service.keys.for_sealing(await service.registry.get(ACME))
    assert service.turns.taken == [(ACME, Urgency.BACKUP)] * 2
    assert set(await service.audited()) == {ACME}


async def test_a_probe(service: Service) -> None:
    """And so is the prober's, which waits for everybody else."""
    await service.register(KeyManagement.SELF)
    del service.turns.taken[:]
    await service.prober(FakeClock()).round()
    assert service.turns.taken == [(ACME, Urgency.PROBE)] * 2
    assert set(await service.audited()) == {ACME}


async def test_a_date_that_is_not_told(service: Service) -> None:
    """Each refusal is looked into once, and the prober's own question keeps its pace: there may never be a date."""
    key = await service.register(KeyManagement.SELF)
    key.schedule_deletion(7)
    key.put_policy(denying(key.standing.policy, "DescribeKey"))
    before = len(service.kms.requests)
    clock = FakeClock()
    prober = service.prober(clock)
    for _ in range(3):
        await prober.round()
        clock.advance(ProbePolicy().interval)
    asked = [request.operation for request in service.kms.requests[before:]]
    assert asked.count("GenerateDataKey") == 3
    assert asked.count("DescribeKey") == 4
