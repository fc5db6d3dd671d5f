"""What every KeyHealthRecords must do. It joins with the fixtures ``registry`` and ``records``, on one database."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from contract.registry import new_tenant
from keystow_service.model import KeyHealth, KeyManagement, KeyObservation, KeyState, KmsOperation, TenantId
from keystow_service.ports import KeyHealthRecords, TenantRegistry

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ACME = TenantId("acme")


def seen(
    state: KeyState,
    minute: float,
    *,
    deletion_time: datetime | None = None,
    operation: KmsOperation | None = None,
) -> KeyObservation:
    """An observation so many minutes after the start, by a request of its own."""
    reason = "" if state is KeyState.ENABLED else f"KMS_KEY_{state.value}"
    time = START + timedelta(minutes=minute)
    return KeyObservation(state, time, reason, f"request-{minute}", deletion_time, operation)


class KeyHealthContract:
    """Subclass it, and provide the fixtures."""

    async def test_reads_back(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """The newest observation reads back as it was written; of other tenants nothing is known."""
        await registry.add(new_tenant("acme"))
        assert await records.of([ACME, TenantId("globex")]) == {}
        pending = seen(KeyState.PENDING_DELETION, 1, deletion_time=START + timedelta(days=7))
        await records.observe(ACME, pending)
        assert await records.of([ACME, TenantId("globex")]) == {ACME: KeyHealth(pending, pending.time, None)}

    async def test_only_changes_are_kept(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """Of many observations those that showed another state stand in the history; the health knows since when."""
        await registry.add(new_tenant("acme"))
        enabled, disabled, again = seen(KeyState.ENABLED, 0), seen(KeyState.DISABLED, 3), seen(KeyState.ENABLED, 5)
        newest = seen(KeyState.ENABLED, 6)
        for each in (enabled, seen(KeyState.ENABLED, 1), disabled, seen(KeyState.DISABLED, 4), again, newest):
            await records.observe(ACME, each)
        assert await records.changes(ACME) == [enabled, disabled, again]
        assert await records.of([ACME]) == {ACME: KeyHealth(newest, again.time, newest.time)}

    async def test_late_observations(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """What was seen before the newest observation changes no state, but the last success is known of it."""
        await registry.add(new_tenant("acme"))
        refused = seen(KeyState.DISABLED, 3)
        await records.observe(ACME, refused)
        await records.observe(ACME, seen(KeyState.ENABLED, 2))
        assert await records.changes(ACME) == [refused]
        assert await records.of([ACME]) == {ACME: KeyHealth(refused, refused.time, START + timedelta(minutes=2))}

    async def test_the_date_of_deletion_stands(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """A date that KMS once told is remembered while it only says that deletion is pending."""
        await registry.add(new_tenant("acme"))
        date = START + timedelta(days=7)
        await records.observe(ACME, seen(KeyState.PENDING_DELETION, 1, deletion_time=date))
        await records.observe(ACME, seen(KeyState.PENDING_DELETION, 2))
        assert (await records.of([ACME]))[ACME].newest.deletion_time == date
        await records.observe(ACME, seen(KeyState.DISABLED, 3))
        assert (await records.of([ACME]))[ACME].newest.deletion_time is None

    async def test_one_operation_refused(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """However often the other one works, for whichever replica, the refusal stands until its own operation does."""
        await registry.add(new_tenant("acme"))
        sealing, opening = KmsOperation.GENERATE_DATA_KEY, KmsOperation.DECRYPT
        for minute in range(6):
            await records.observe(ACME, seen(KeyState.ACCESS_DENIED, 2 * minute, operation=sealing))
            await records.observe(ACME, seen(KeyState.ENABLED, 2 * minute + 1, operation=opening))
        health = (await records.of([ACME]))[ACME]
        assert (health.newest, health.shown_by) == (seen(KeyState.ACCESS_DENIED, 10), frozenset([sealing]))
        assert health.last_success_time == seen(KeyState.ENABLED, 11).time
        await records.observe(ACME, seen(KeyState.ENABLED, 12, operation=sealing))
        assert [each.state for each in await records.changes(ACME)] == [KeyState.ACCESS_DENIED, KeyState.ENABLED]

    async def test_at_once(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """Of observations written at once none is lost and no change is told twice."""
        await registry.add(new_tenant("acme"))
        await asyncio.gather(*(records.observe(ACME, seen(KeyState.ENABLED, minute)) for minute in range(6)))
        health = (await records.of([ACME]))[ACME]
        assert health.newest == seen(KeyState.ENABLED, 5)
        assert len(await records.changes(ACME)) == 1

    async def test_unobserved(self, registry: TenantRegistry, records: KeyHealthRecords) -> None:
        """Own keys in a place that were not seen for long; a provider's key is not watched for its tenants."""
        tenants = [await registry.add(new_tenant(name)) for name in ("acme", "globex", "initech")]
        await registry.add(new_tenant("provided", KeyManagement.PROVIDER))
        elsewhere = await registry.add(replace(new_tenant("elsewhere"), data_center="us"))
        for tenant, minute in zip(tenants, (5, None, 1), strict=True):
            if minute is not None:
                await records.observe(tenant.tenant_id, seen(KeyState.ENABLED, minute))
        since = START + timedelta(minutes=4)
        assert await records.unobserved(since, "uk", limit=10) == [tenants[1], tenants[2]]
        assert await records.unobserved(since, "uk", limit=1) == [tenants[1]]
        assert await records.unobserved(since, "uk", start_after=tenants[1].tenant_id, limit=10) == [tenants[2]]
        assert await records.unobserved(since, "us", limit=10) == [elsewhere]
