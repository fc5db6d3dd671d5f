"""How the service bears with a KMS that throttles, fails or is slow: through leases, against the faithful KMS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clock import FakeClock
from keystow_service.acting import PROBING, Acting, Urgency, acting
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.kms import KmsPatience, open_kms
from keystow_service.adapters.local_store import open_local_store
from keystow_service.errors import (
    KeystowError,
    KmsKeyDisabledError,
    KmsKeyPendingDeletionError,
    KmsThrottledError,
    KmsUnavailableError,
)
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook
from keystow_service.keys.kms_quota import QuotaPolicy
from keystow_service.keys.kms_turns import KmsTurns
from keystow_service.keys.lease import LeasePolicy
from keystow_service.keys.rationed import RationedKeyService
from keystow_service.model import Caller, DataCenter, KeyArn, KeyManagement, Tenant, TenantId
from keystow_service.ports import Clock, KeyService, Site
from servers.kms.faults import Fault
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.kms.sessions import session_of

REGION = "us-east-1"
THROTTLED = Fault("ThrottlingException")


@pytest.fixture
async def kms() -> AsyncIterator[FaithfulKms]:
    async with faithful_kms(REGION) as running:
        yield running


@asynccontextmanager
async def data_keys(
    kms: FaithfulKms,
    folder: Path,
    quota: QuotaPolicy | None = None,
    patience: KmsPatience | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[DataKeys]:
    """Of a process; two tenants' keys are in the KMS."""
    turns = KmsTurns(quota or QuotaPolicy(), patience=30.0)

    def rationed(service: KeyService) -> KeyService:
        return RationedKeyService(service, turns)

    async with (
        open_kms(
            REGION, session=session_of(), endpoint=kms.endpoints[REGION], patience=patience, around=rationed
        ) as service,
        open_local_store(folder, parts_in_flight=1, clock=SystemClock()) as store,
    ):
        arn = KeyArn.parse(kms.create_key("acme", region=REGION).arn)
        site = Site(DataCenter("us", "US", REGION), store, service, arn)
        book = KeyHealthBook(SystemClock(), lambda *_: None)
        keys = DataKeys({"us": site}, "test", clock or SystemClock(), LeasePolicy(), book)
        try:
            yield keys
        finally:
            await keys.aclose()


def tenant_of(kms: FaithfulKms, name: str = "acme") -> Tenant:
    arn = KeyArn.parse(kms.create_key(name, region=REGION).arn)
    return Tenant(TenantId(name), name, KeyManagement.SELF, arn, "us", datetime(2026, 1, 1, tzinfo=UTC))


async def test_what_passes_is_asked_for_again(kms: FaithfulKms, tmp_path: Path) -> None:
    """A throttled request and one whose answer is lost cost nobody a backup; each attempt is a request of its own."""
    async with data_keys(kms, tmp_path) as keys:
        kms.faults.fail_next(THROTTLED)
        kms.faults.fail_next(Fault("KMSInternalException", status=500))
        await keys.for_sealing(tenant_of(kms))
    assert [request.answer for request in kms.requests] == ["ThrottlingException", "KMSInternalException", "OK"]


async def test_a_refusal_is_not_asked_for_again(kms: FaithfulKms, tmp_path: Path) -> None:
    """It is an answer."""
    async with data_keys(kms, tmp_path) as keys:
        tenant = tenant_of(kms)
        kms[tenant.key_arn.text].put_policy({"Version": "2012-10-17", "Statement": []})
        with pytest.raises(Exception, match="does not let the service use"):
            await keys.for_sealing(tenant)
    assert len(kms.requests) == 1


async def test_a_refusal_counts_before_it_is_explained(kms: FaithfulKms, tmp_path: Path) -> None:
    """While DescribeKey is not answered, no use is served from what was proven before; then all are told the reason."""
    clock = FakeClock()
    async with data_keys(kms, tmp_path, patience=KmsPatience(explanation=60.0), clock=clock) as keys:
        tenant = tenant_of(kms)
        sealing = await keys.for_sealing(tenant)
        wrapped = sealing.data_key.wrapped
        opening = await keys.for_opening(tenant, wrapped)
        gate = kms.faults.hold("DescribeKey")
        kms[tenant.key_arn.text].schedule_deletion()
        clock.advance(LeasePolicy().refresh)
        await sealing.hold()
        await gate.until(held=1)
        assert not sealing.confirmed()
        assert not opening.confirmed()
        deeds = (sealing.hold(), opening.hold(), keys.for_sealing(tenant), keys.for_opening(tenant, wrapped))
        uses = [asyncio.create_task(use) for use in deeds]
        await gate.until(held=3)  # GenerateDataKey was refused once more, and Decrypt
        assert not any(use.done() for use in uses)
        gate.open()
        ends = await asyncio.gather(*uses, return_exceptions=True)
    assert [type(end) for end in ends] == [KmsKeyPendingDeletionError] * len(uses)
    assert all(isinstance(end, KeystowError) and "deletion_time" in end.details for end in ends)


async def test_what_is_explained_late_ends_no_newer_lease(kms: FaithfulKms, tmp_path: Path) -> None:
    """A key that was enabled, and has proven so, while its refusal was looked into, stays in use."""
    clock = FakeClock()
    async with data_keys(kms, tmp_path, patience=KmsPatience(explanation=60.0), clock=clock) as keys:
        tenant = tenant_of(kms)
        sealing = await keys.for_sealing(tenant)
        gate = kms.faults.hold("DescribeKey")
        kms[tenant.key_arn.text].disable()
        clock.advance(LeasePolicy().bound)
        refused = asyncio.create_task(sealing.hold())
        await gate.until(held=1)
        kms[tenant.key_arn.text].enable()
        opening = await keys.for_opening(tenant, sealing.data_key.wrapped)
        await sealing.hold()
        gate.open()
        with pytest.raises(KmsKeyDisabledError):
            await refused
        assert opening.confirmed()
        assert sealing.confirmed()


async def test_a_call_without_time_for_the_reason_is_told_the_refusal(kms: FaithfulKms, tmp_path: Path) -> None:
    """Not that KMS did not answer."""
    async with data_keys(kms, tmp_path, patience=KmsPatience(explanation=60.0)) as keys:
        tenant = tenant_of(kms)
        kms[tenant.key_arn.text].disable()
        kms.faults.hold("DescribeKey")
        with pytest.raises(KmsKeyDisabledError):
            await within(0.6, keys, tenant)


async def test_a_call_is_told_before_its_deadline(kms: FaithfulKms, tmp_path: Path) -> None:
    """What KMS said last, or that it said nothing; whoever has more time goes on waiting for the same request."""
    async with data_keys(kms, tmp_path, patience=KmsPatience(attempts=1_000)) as keys:
        tenant = tenant_of(kms)
        kms.faults.fail_always(THROTTLED)
        with pytest.raises(KmsThrottledError) as throttled:
            await within(0.6, keys, tenant)
        assert throttled.value.retry_after
        patient = asyncio.create_task(within(60, keys, tenant))
        kms.faults.end()
        await patient
        other = tenant_of(kms, "globex")
        gate = kms.faults.hold("GenerateDataKey")
        with pytest.raises(KmsUnavailableError):
            await within(0.6, keys, other)
        patient = asyncio.create_task(within(60, keys, other))
        gate.open()
        await patient


async def within(seconds: float, keys: DataKeys, tenant: Tenant) -> None:
    """Take a data key on behalf of a call that has so much time."""
    deadline = asyncio.get_running_loop().time() + seconds
    token = acting.set(Acting(Caller("anonymous"), "Put", deadline=deadline))
    try:
        await keys.for_sealing(tenant)
    finally:
        acting.reset(token)


async def test_what_exceeds_the_share_of_the_quota_waits(kms: FaithfulKms, tmp_path: Path) -> None:
    """None of many at once is lost, though not all may be sent at once; who would wait too long is told so."""
    async with data_keys(kms, tmp_path, QuotaPolicy(region=50, tenant=1_000)) as keys:
        tenants = [tenant_of(kms, f"tenant-{number}") for number in range(80)]
        await asyncio.gather(*map(keys.for_sealing, tenants))
    assert [request.answer for request in kms.requests] == ["OK"] * 80
    full = QuotaPolicy(region=1, tenant=1, max_waiting=0)
    async with data_keys(kms, tmp_path, full, KmsPatience(attempts=1)) as keys:
        with pytest.raises(KmsThrottledError) as told:
            await keys.for_sealing(tenants[0])
    assert told.value.retry_after
    assert len(kms.requests) == 80


async def test_a_backup_that_meets_a_probe_does_not_wait_as_one(kms: FaithfulKms, tmp_path: Path) -> None:
    """The request that both wait for goes when the backup's own would, before backups that came later."""
    async with data_keys(kms, tmp_path, QuotaPolicy(region=2, tenant=1_000)) as keys:
        acme, *others = [tenant_of(kms, name) for name in ("acme", "first", "second", "third", "later", "last")]
        before = [asyncio.create_task(keys.for_sealing(tenant)) for tenant in others[:3]]
        meeting = [asyncio.create_task(probe(keys, acme)), asyncio.create_task(keys.for_sealing(acme))]
        await asyncio.gather(*before)
        await asyncio.gather(*meeting, *map(keys.for_sealing, others[3:]))
    assert [request.context["keystow:tenant"] for request in kms.requests][3:] == ["acme", "later", "last"]


async def probe(keys: DataKeys, tenant: Tenant) -> None:
    """As the prober does, in a task of its own."""
    acting.set(PROBING)
    await keys.probe(tenant)


async def test_a_lease_counts_from_the_attempt_that_kms_answered(kms: FaithfulKms, tmp_path: Path) -> None:
    """Not from one that was throttled before it: the proof is as fresh as the request that brought it."""
    clock = FakeClock()
    async with data_keys(kms, tmp_path, clock=clock) as keys:
        tenant = tenant_of(kms)
        kms.faults.fail_next(THROTTLED)
        gate = kms.faults.hold()
        asking = asyncio.create_task(keys.for_sealing(tenant))
        await gate.until(held=1)
        clock.advance(LeasePolicy().bound)
        gate.open()
        held = await asking
        clock.advance(LeasePolicy().bound - 1)
        assert held.confirmed()
        clock.advance(1)
        assert not held.confirmed()
    assert [request.answer for request in kms.requests] == ["ThrottlingException", "OK"]


async def test_a_quota_is_one_for_all_who_take_turns() -> None:
    """It is the region's, whichever data centre in it asks; another region has its own."""
    policy = QuotaPolicy(region=1, tenant=1, max_waiting=1)
    region, other = KmsTurns(policy, patience=0.01), KmsTurns(policy, patience=0.01)
    arn = KeyArn.parse(f"arn:aws:kms:{REGION}:111122223333:key/0d9f6f8e-5c7b-4a3e-9f0a-1b2c3d4e5f60")
    await region.take(arn, "acme", Urgency.BACKUP)
    with pytest.raises(KmsThrottledError):
        await region.take(arn, "globex", Urgency.BACKUP)
    await other.take(arn, "acme", Urgency.BACKUP)
