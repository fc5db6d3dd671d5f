"""How the health of keys gets about: from a use or a probe to the registry, and from there to whoever asks."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from uuid import uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from keys.world import REFRESH, REGION, World, settled
from keystow_service.adapters.registry import SqlRegistry, open_registry
from keystow_service.adapters.registry_database import Database, open_database
from keystow_service.adapters.registry_key_health import SqlKeyHealth
from keystow_service.audit import KeyStateChanged
from keystow_service.errors import (
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsKeyPendingDeletionError,
    KmsUnavailableError,
    RegistryUnavailableError,
)
from keystow_service.keys.health import KeyHealthBook, KeyHealthView
from keystow_service.keys.health_journal import KeyHealthJournal
from keystow_service.keys.probing import KeyProber, ProbePolicy
from keystow_service.keys.proving import KeyObserver
from keystow_service.model import (
    DataCenter,
    DataKey,
    KeyArn,
    KeyDescription,
    KeyHealthStep,
    KeyManagement,
    KeyObservation,
    KeyState,
    KmsOperation,
    Tenant,
    TenantId,
)
from keystow_service.ports import EncryptionContext, Site

INTERVAL = 60.0
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/registry.db"


@pytest.fixture
async def registry(url: str, world: World) -> AsyncIterator[SqlRegistry]:
    """Knows acme, under a key of its own, and a tenant under the provider's."""
    async with open_registry(url) as registry:
        await registry.add(world.acme)
        provided = Tenant(
            TenantId("provided"), "", KeyManagement.PROVIDER, world.arn, "us", datetime(2026, 1, 1, tzinfo=UTC)
        )
        await registry.add(provided)
        yield registry


def enabled(seconds: float) -> KeyObservation:
    return KeyObservation(KeyState.ENABLED, START + timedelta(seconds=seconds), request_id=f"r-{seconds}")


def disabled(seconds: float) -> KeyObservation:
    return KeyObservation(
        KeyState.DISABLED, START + timedelta(seconds=seconds), "KMS_KEY_DISABLED", request_id=f"r-{seconds}"
    )


def ignored(change: KeyStateChanged) -> None:
    """For tests that are about something else."""


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until it holds."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def written(journal: KeyHealthJournal) -> None:
    """Let the journal write what it has, as at a server's stop."""
    task = asyncio.create_task(journal.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- The journal ------------------------------------------------------------------------------------------------------


async def test_the_last_success_before_a_refusal_is_recorded(world: World, registry: SqlRegistry) -> None:
    """Repetitions are written once in a while, but a change brings the last of them along."""
    journal = KeyHealthJournal(registry, registry.key_health, ignored, interval=INTERVAL)
    for seen in (enabled(0), enabled(10), enabled(20), disabled(30)):
        journal.note(world.acme.tenant_id, seen)
    await written(journal)
    health = (await registry.key_health.of([world.acme.tenant_id]))[world.acme.tenant_id]
    assert (health.newest, health.last_success_time) == (disabled(30), enabled(20).time)
    assert await registry.key_health.changes(world.acme.tenant_id) == [enabled(0), disabled(30)]


async def test_the_providers_key_is_not_recorded(registry: SqlRegistry) -> None:
    """What is seen of it says nothing of a tenant's own key; nor does a key that was only checked for a tenant."""
    journal = KeyHealthJournal(registry, registry.key_health, ignored, interval=INTERVAL)
    for name in ("provided", "unheard-of"):
        journal.note(TenantId(name), enabled(0))
    await written(journal)
    assert await registry.key_health.of([TenantId("provided"), TenantId("unheard-of")]) == {}


async def test_an_observation_that_cannot_be_written(world: World, registry: SqlRegistry, url: str) -> None:
    """What a later release wrote and this one cannot read costs that tenant's observation, and no other tenant's."""
    await registry.key_health.observe(world.acme.tenant_id, enabled(0))
    await registry.add(replace(world.globex, key_arn=KeyArn.parse(f"arn:aws:kms:us-east-1:000000000000:key/{uuid4()}")))
    database = await open_database(url)
    await database.ask(text("UPDATE key_health SET state = 'UNHEARD_OF'"))
    await database.aclose()
    journal = KeyHealthJournal(registry, registry.key_health, ignored, interval=INTERVAL)
    journal.note(world.acme.tenant_id, disabled(30))
    journal.note(world.globex.tenant_id, disabled(30))
    with capture_logs() as log:
        await written(journal)
    assert await registry.key_health.changes(world.globex.tenant_id) == [disabled(30)]
    assert [line["tenant_id"] for line in log if line["event"] == "key_health.not_recorded"] == ["acme"]


async def test_a_registry_that_does_not_answer(world: World, registry: SqlRegistry, url: str) -> None:
    """What was seen meanwhile is written once it answers again, in order."""
    database = await open_database(url)
    journal = KeyHealthJournal(registry, registry.key_health, ignored, interval=INTERVAL, retry_interval=0.01)
    try:
        await database.ask(text("ALTER TABLE key_health RENAME TO away"))
        with capture_logs() as log:
            running = asyncio.create_task(journal.run())
            for seen in (enabled(0), disabled(30), enabled(50)):
                journal.note(world.acme.tenant_id, seen)
            await until(lambda: "key_health.delayed" in [line["event"] for line in log])
        await database.ask(text("ALTER TABLE away RENAME TO key_health"))
        running.cancel()  # what is unwritten gets its last chance
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await database.aclose()
    assert await registry.key_health.changes(world.acme.tenant_id) == [enabled(0), disabled(30), enabled(50)]


@pytest.mark.parametrize("since", [None, enabled(40)], ids=["", "changed again"])
@pytest.mark.parametrize("before", [None, enabled(0)], ids=["first", "later"])
async def test_a_registry_whose_answer_is_lost(
    world: World, registry: SqlRegistry, url: str, before: KeyObservation | None, since: KeyObservation | None
) -> None:
    """A change that it took all the same is told, once, also where another replica has seen the next one since."""
    acme = world.acme.tenant_id
    if before is not None:
        await registry.key_health.observe(acme, before)
    changes: list[KeyStateChanged] = []
    database = await open_database(url)
    journal = KeyHealthJournal(
        registry, ForgetfulRecords(database, since), changes.append, interval=INTERVAL, retry_interval=0
    )
    with capture_logs() as log:
        journal.note(acme, disabled(30))
        await written(journal)
        journal.note(acme, disabled(30 + 2 * INTERVAL))
        await written(journal)
    await database.aclose()
    told = [(change.previous, change.key_state, change.kms_request_id) for change in changes]
    assert told[:1] == [(before.state if before else None, KeyState.DISABLED, disabled(30).request_id)]
    assert len(told) == (1 if since is None else 2)
    assert len([line for line in log if line["event"] == "key_state_changed"]) == len(told)


async def test_more_than_can_be_kept(world: World, registry: SqlRegistry) -> None:
    """What there is no room for while the registry does not answer is recorded when it is seen again."""
    journal = KeyHealthJournal(registry, registry.key_health, ignored, interval=INTERVAL, max_unwritten=2)
    with capture_logs() as log:
        for seen in (enabled(0), disabled(1), enabled(2), enabled(3)):
            journal.note(world.acme.tenant_id, seen)
        await written(journal)
    assert [line["event"] for line in log if line["log_level"] == "error"] == ["key_health.full"]
    journal.note(world.acme.tenant_id, enabled(4))
    await written(journal)
    assert await registry.key_health.changes(world.acme.tenant_id) == [enabled(0), disabled(1), enabled(4)]


class ForgetfulRecords(SqlKeyHealth):
    """The first observation is written, and then perhaps one of another replica, but nobody is answered."""

    def __init__(self, database: Database, then: KeyObservation | None) -> None:
        super().__init__(database)
        self._then = then
        self._forgets = True

    async def observe(self, tenant_id: TenantId, seen: KeyObservation) -> KeyHealthStep:
        step = await super().observe(tenant_id, seen)
        if not self._forgets:
            return step
        self._forgets = False
        if self._then is not None:
            await super().observe(tenant_id, self._then)
        raise RegistryUnavailableError("lost")


# --- The view ---------------------------------------------------------------------------------------------------------


async def test_replicas_tell_the_same(world: World, registry: SqlRegistry) -> None:
    """A process that has not used a key tells what another saw; one that saw more tells that, and since when."""
    view = KeyHealthView(world.health, registry.key_health)
    assert await view.of([world.acme.tenant_id]) == {}
    await registry.key_health.observe(world.acme.tenant_id, disabled(-90))
    assert (await view.of([world.acme.tenant_id]))[world.acme.tenant_id].newest == disabled(-90)
    world.health.observe(world.acme.tenant_id, disabled(30))
    health = (await view.of([world.acme.tenant_id]))[world.acme.tenant_id]
    assert (health.newest, health.since_time) == (disabled(30), disabled(-90).time)


async def test_a_refusal_that_another_process_saw(world: World, registry: SqlRegistry, replica: "Replica") -> None:
    """Whoever sees that operation work again ends it, also one to whom it never failed; no other operation does."""
    elsewhere, acme = Replica(world, registry), world.acme.tenant_id
    sealing, opening = replica.book.of(SEALING), replica.book.of(OPENING)
    view = KeyHealthView(replica.book, registry.key_health)

    async def seen(by: KeyObserver) -> Sequence[KeyState]:
        """The key works a quarter of a minute later; what is told of it here, and what the registry has."""
        world.clock.advance(INTERVAL / 4)
        by.succeeded(acme, "works")
        await written(replica.journal)
        return [(await place.of([acme]))[acme].newest.state for place in (view, registry.key_health)]

    for operation in (sealing, opening):
        await seen(operation)
    elsewhere.book.of(SEALING).failed(acme, DENIED)
    await written(elsewhere.journal)
    refused, works = KeyState.ACCESS_DENIED, KeyState.ENABLED
    assert [await seen(opening) for _ in range(2)] == [[refused, refused]] * 2
    assert await seen(sealing) == [works, works]
    assert await seen(opening) == [works, works]
    await elsewhere.keys.aclose()


async def test_changes_are_told_in_the_log(world: World, registry: SqlRegistry, replica: "Replica") -> None:
    """Each change once, by tenant, with the request that showed it and the date of a deletion; no first success."""
    with capture_logs() as log:
        await replica.keys.for_sealing(world.acme)
        world.admin.schedule_deletion(world.arn, days=7)
        world.clock.advance(INTERVAL * 2)
        for _ in range(2):
            with pytest.raises(KmsKeyPendingDeletionError):
                await replica.keys.for_sealing(world.acme)
        world.admin.cancel_deletion(world.arn)
        world.admin.enable(world.arn)
        await replica.keys.for_sealing(world.acme)
        await written(replica.journal)
    told = [
        (line["previous"], line["key_state"], line["deletion_time"])
        for line in log
        if line["event"] == "key_state_changed"
    ]
    assert told == [
        ("ENABLED", "PENDING_DELETION", (START + timedelta(days=7)).isoformat()),
        ("PENDING_DELETION", "ENABLED", ""),
    ]
    assert [change.key_state for change in replica.changes] == [KeyState.PENDING_DELETION, KeyState.ENABLED]


async def test_a_change_is_told_once_whoever_saw_the_state_before(
    world: World, registry: SqlRegistry, replica: "Replica"
) -> None:
    """Another process may see the key work again than the one that saw it refused, which may be no more."""
    world.admin.disable(world.arn)
    for _ in range(2):
        with pytest.raises(KmsKeyDisabledError):
            await replica.keys.for_sealing(world.acme)
    await written(replica.journal)
    later, latest = Replica(world, registry), Replica(world, registry)
    with pytest.raises(KmsKeyDisabledError):
        await later.keys.for_sealing(world.acme)
    await written(later.journal)
    world.admin.enable(world.arn)
    world.clock.advance(1)
    for process in (latest, later, replica):
        await process.keys.for_sealing(world.acme)
        await written(process.journal)
        await process.keys.aclose()
    assert [[change.key_state for change in process.changes] for process in (replica, later, latest)] == [
        [KeyState.DISABLED],
        [],
        [KeyState.ENABLED],
    ]
    assert latest.changes[0].previous is KeyState.DISABLED


async def test_what_becomes_of_the_providers_key(replica: "Replica") -> None:
    """The registry keeps no health of it; what this process sees is told."""
    sealing = replica.book.of(SEALING)
    sealing.succeeded(TenantId("provided"), "works")
    for _ in range(2):
        sealing.failed(TenantId("provided"), DISABLED)
    await written(replica.journal)
    assert [(change.previous, change.key_state) for change in replica.changes] == [
        (KeyState.ENABLED, KeyState.DISABLED)
    ]


SEALING, OPENING = KmsOperation.GENERATE_DATA_KEY, KmsOperation.DECRYPT
DENIED, DISABLED = KmsAccessDeniedError("refused"), KmsKeyDisabledError("refused")


@pytest.mark.parametrize("refused", [SEALING, OPENING])
async def test_one_operation_is_refused(replica: "Replica", world: World, refused: KmsOperation) -> None:
    """That is told once, and hidden by no success of the other; its own success ends it."""
    other = OPENING if refused is SEALING else SEALING
    refusals, successes = replica.book.of(refused), replica.book.of(other)
    acme = world.acme.tenant_id
    for _ in range(3):
        successes.succeeded(acme, "works")
        refusals.failed(acme, DENIED)
    known = replica.book.get(acme)
    assert known is not None
    assert (known.newest.state, known.last_success_time) == (KeyState.ACCESS_DENIED, world.clock.now())
    refusals.succeeded(acme, "works")
    await written(replica.journal)
    assert [change.key_state for change in replica.changes] == [KeyState.ACCESS_DENIED, KeyState.ENABLED]


async def test_a_disabled_key_that_one_operation_is_not_granted_of(world: World, replica: "Replica") -> None:
    """KMS asks its policy first: that the key is disabled is told all the same, and once; any success ends it."""
    sealing, opening = replica.book.of(SEALING), replica.book.of(OPENING)
    acme = world.acme.tenant_id
    for _ in range(3):
        sealing.failed(acme, DENIED)
        opening.failed(acme, DISABLED)
    opening.succeeded(acme, "works")
    await written(replica.journal)
    assert [change.key_state for change in replica.changes] == [
        KeyState.ACCESS_DENIED,
        KeyState.DISABLED,
        KeyState.ENABLED,
    ]


async def test_the_newest_refusal_of_an_operation_counts(world: World) -> None:
    """A key that is no longer granted is no longer known to be disabled."""
    sealing, opening = world.health.of(SEALING), world.health.of(OPENING)
    acme = world.acme.tenant_id
    for refused in (sealing, opening):
        refused.failed(acme, DISABLED)
    sealing.failed(acme, DENIED)
    assert shown(world) is KeyState.DISABLED
    opening.failed(acme, DENIED)
    assert shown(world) is KeyState.ACCESS_DENIED


@pytest.mark.parametrize("state", [KeyState.ACCESS_DENIED, KeyState.UNAVAILABLE, KeyState.ENABLED])
async def test_a_description_proves_no_use(world: World, state: KeyState) -> None:
    """A key that is described as enabled may be denied all the same."""
    acme = world.acme.tenant_id
    world.health.observe(acme, KeyObservation(state, world.clock.now(), operation=SEALING))
    before = world.health.get(acme)
    world.clock.advance(1)
    world.health.observe(acme, KeyObservation(KeyState.ENABLED, world.clock.now(), operation=KmsOperation.DESCRIBE_KEY))
    assert world.health.get(acme) == before


async def test_a_description_ends_what_it_contradicts(world: World) -> None:
    """A key that was seen disabled, and cannot be used since for want of a grant, is not called disabled for ever."""
    acme = world.acme.tenant_id
    world.health.of(OPENING).failed(acme, DISABLED)
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.DISABLED
    world.health.observe(acme, KeyObservation(KeyState.ENABLED, world.clock.now(), operation=KmsOperation.DESCRIBE_KEY))
    world.health.of(SEALING).failed(acme, DENIED)
    known = world.health.get(acme)
    assert known is not None
    assert (known.newest.state, known.last_success_time) == (KeyState.ACCESS_DENIED, None)


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.NOT_FOUND])
async def test_a_description_is_no_use(world: World, replica: "Replica", state: KeyState) -> None:
    """What it contradicts stands until the next use, which alone tells whether the key works."""
    acme, describing = world.acme.tenant_id, KmsOperation.DESCRIBE_KEY
    for operation in (SEALING, OPENING, describing):
        replica.book.observe(acme, KeyObservation(state, world.clock.now(), operation=operation))
    for operation in (SEALING, OPENING):
        replica.book.of(operation).failed(acme, DENIED)
    replica.book.observe(acme, KeyObservation(KeyState.ENABLED, world.clock.now(), operation=describing))
    replica.book.of(SEALING).failed(acme, DENIED)
    await written(replica.journal)
    assert [change.key_state for change in replica.changes] == [state, KeyState.ACCESS_DENIED]


async def test_a_description_ends_an_announced_deletion(world: World) -> None:
    """Its date is told no longer once the key is described as enabled, and denials count again."""
    acme, describing = world.acme.tenant_id, KmsOperation.DESCRIBE_KEY
    date = START + timedelta(days=7)
    now = world.clock.now()
    pending = KeyObservation(KeyState.PENDING_DELETION, now, deletion_time=date, operation=describing)
    world.health.observe(acme, pending)
    world.health.observe(acme, KeyObservation(KeyState.ENABLED, now, operation=describing))
    known = world.health.get(acme)
    assert known is not None
    assert known.newest.deletion_time is None
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.ACCESS_DENIED


async def test_what_nothing_shows_any_more(world: World) -> None:
    """An operation that nobody uses any more does not uphold for ever what it showed once."""
    acme = world.acme.tenant_id
    world.health.of(OPENING).failed(acme, DISABLED)
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.DISABLED
    world.clock.advance(timedelta(hours=1).total_seconds())
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.ACCESS_DENIED


async def test_a_deletion_whose_date_has_passed(world: World) -> None:
    """It outweighs nothing, whichever operations showed it."""
    acme = world.acme.tenant_id
    date = START + timedelta(seconds=10)
    pending = KmsKeyPendingDeletionError("refused", deletion_time=date.isoformat())
    for operation in (SEALING, OPENING, KmsOperation.DESCRIBE_KEY):
        world.health.of(operation).failed(acme, pending)
    world.clock.advance(10)
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.ACCESS_DENIED


async def test_an_announced_deletion_outlasts_the_grants(world: World) -> None:
    """A customer who takes away everything stops neither the deletion nor its being told, until its date."""
    acme = world.acme.tenant_id
    date = START + timedelta(days=7)
    pending = KmsKeyPendingDeletionError("refused", deletion_time=date.isoformat())
    for refusal in (pending, DENIED):
        for operation in (SEALING, OPENING):
            world.health.of(operation).failed(acme, refusal)
    known = world.health.get(acme)
    assert known is not None
    assert (known.newest.state, known.newest.deletion_time) == (KeyState.PENDING_DELETION, date)
    world.clock.advance(timedelta(days=7).total_seconds())
    world.health.of(SEALING).failed(acme, DENIED)
    assert shown(world) is KeyState.ACCESS_DENIED


def shown(place: "World | Replica") -> KeyState:
    known = (place.health if isinstance(place, World) else place.book).get(TenantId("acme"))
    assert known is not None
    return known.newest.state


def test_counting_while_keys_are_seen_first(world: World) -> None:
    """Whoever reads the metrics does so in a thread of its own."""

    def observe() -> None:
        for number in range(2000):
            world.health.of(SEALING).failed(TenantId(f"tenant-{number}"), DISABLED)

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    observing = threading.Thread(target=observe)
    observing.start()
    try:
        while observing.is_alive():
            world.health.count(KeyState.DISABLED)
    finally:
        observing.join()
        sys.setswitchinterval(often)
    assert world.health.count(KeyState.DISABLED) == 2000


# --- The prober -------------------------------------------------------------------------------------------------------


class Replica:
    """A process that probes, and writes down what it saw."""

    def __init__(self, world: World, registry: SqlRegistry, data_center: str = "us") -> None:
        self.changes: list[KeyStateChanged] = []
        self.journal = KeyHealthJournal(registry, registry.key_health, self.changes.append, interval=INTERVAL / 2)
        self.book = KeyHealthBook(world.clock, self.journal.note)
        self.keys = world.data_keys(observers=self.book)
        self._prober = KeyProber(
            world.sites[data_center],
            self.keys,
            self.book,
            registry.key_health,
            world.clock,
            ProbePolicy(INTERVAL, 600.0, page=1),
            lambda: 0.5,
        )

    async def round(self) -> None:
        await self._prober.round()
        await written(self.journal)


class DeafKms:
    """A KMS that takes every request and answers none."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:  # noqa: ARG002 - KeyService's
        await self._never()

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:  # noqa: ARG002 - as above
        await self._never()

    async def describe(self, arn: KeyArn) -> KeyDescription:  # noqa: ARG002 - as above
        await self._never()

    async def _never(self) -> NoReturn:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError  # it is never set


@pytest.fixture
async def replica(world: World, registry: SqlRegistry) -> AsyncIterator[Replica]:
    replica = Replica(world, registry)
    yield replica
    await replica.keys.aclose()


async def test_unused_keys_are_probed(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """Once an interval a tenant's own key is used though nobody uses it; a tenant under the provider's key is not."""
    for asked in (1, 1, 2):
        await replica.round()
        assert world.gate.generated == asked
        world.clock.advance(INTERVAL * 2 / 3)
    health = await registry.key_health.of([world.acme.tenant_id])
    assert health[world.acme.tenant_id].newest.state is KeyState.ENABLED


async def test_keys_in_use_are_left_alone(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """While traffic of any replica renews a lease, no other probes the key."""
    elsewhere = Replica(world, registry)
    for _ in range(4):
        await elsewhere.keys.for_sealing(world.acme)
        await settled()
        await written(elsewhere.journal)
        used = world.gate.generated
        await replica.round()
        assert world.gate.generated == used
        world.clock.advance(REFRESH)
    await elsewhere.keys.aclose()


async def test_a_key_that_is_not_answered_for_hides_no_other(
    world: World, registry: SqlRegistry, replica: Replica
) -> None:
    """However many tenants stay unseen, the others' keys are probed in the same round."""
    arn = world.admin.create(REGION, tenants=["globex"]).arn
    await registry.add(replace(world.globex, key_arn=arn))
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(INTERVAL * 2)
    await replica.round()
    assert world.gate.generated == 2


async def test_an_outage_elsewhere_delays_no_probe(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """While KMS of one region does not answer, the keys of another are probed as ever."""
    arn = KeyArn.parse(f"arn:aws:kms:eu-west-1:111122223333:key/{uuid4()}")
    await registry.add(Tenant(TenantId("afar"), "", KeyManagement.SELF, arn, "eu", START))
    deaf = DeafKms()
    world.sites["eu"] = Site(DataCenter("eu", "EU", "eu-west-1"), world.sites["us"].store, deaf, arn)
    elsewhere = Replica(world, registry, "eu")
    waiting = asyncio.create_task(elsewhere.round())
    await deaf.asked.wait()
    await replica.round()
    assert (world.gate.generated, waiting.done()) == (1, False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await elsewhere.keys.aclose()


async def test_a_probe_leaves_no_data_key(world: World, replica: Replica) -> None:
    """Nothing is kept in memory of a probe that a new object could be sealed under."""
    await replica.round()
    await replica.keys.for_sealing(world.acme)
    assert world.gate.generated == 2


async def test_a_pending_deletion_is_found(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """Nobody has used the key since, and its state and the date are known all the same."""
    await replica.round()
    world.admin.schedule_deletion(world.arn, days=7)
    date = world.clock.now() + timedelta(days=7)
    world.clock.advance(INTERVAL * 2)
    await replica.round()
    newest = (await registry.key_health.of([world.acme.tenant_id]))[world.acme.tenant_id].newest
    assert (newest.state, newest.deletion_time) == (KeyState.PENDING_DELETION, date)


async def test_a_restore_that_was_denied_once(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """The probe finds that it is granted again, also where another process saw the denial; then it unwraps no more."""
    elsewhere = Replica(world, registry)
    for operation in (SEALING, OPENING):
        elsewhere.book.of(operation).succeeded(world.acme.tenant_id, "works")
    elsewhere.book.of(OPENING).failed(world.acme.tenant_id, DENIED)
    await written(elsewhere.journal)
    for _ in range(2):
        world.clock.advance(INTERVAL * 2)
        await replica.round()
        health = await registry.key_health.of([world.acme.tenant_id])
        assert (health[world.acme.tenant_id].newest.state, world.gate.unwrapped) == (KeyState.ENABLED, 1)


async def test_a_restore_that_is_still_denied(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """That is asked anew each time, and nobody is warned of what is known."""
    replica.book.of(OPENING).failed(world.acme.tenant_id, DENIED)
    await written(replica.journal)
    world.gate.not_unwrapped = DENIED
    with capture_logs() as log:
        for asked in (1, 2):
            world.clock.advance(INTERVAL * 2)
            await replica.round()
            assert world.gate.unwrapped == asked
    assert "kms_request_failed" not in [line["event"] for line in log]
    health = await registry.key_health.of([world.acme.tenant_id])
    assert health[world.acme.tenant_id].newest.state is KeyState.ACCESS_DENIED


async def test_a_key_that_works_again_elsewhere(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """A process that saw it refused, and does not use it any more, counts it no longer."""
    replica.book.of(SEALING).failed(world.acme.tenant_id, DISABLED)
    await written(replica.journal)
    world.clock.advance(1)
    elsewhere = Replica(world, registry)
    elsewhere.book.of(SEALING).succeeded(world.acme.tenant_id, "works")
    await written(elsewhere.journal)
    await replica.round()
    assert (world.gate.generated, replica.book.count(KeyState.DISABLED)) == (0, 0)


async def test_a_key_that_is_denied_altogether(world: World, registry: SqlRegistry, replica: Replica) -> None:
    """It was described as disabled once; now that nothing is granted, that is what is told."""
    world.admin.disable(world.arn)
    await replica.round()
    world.gate.lost = world.gate.not_described = DENIED
    for _ in range(2):
        world.clock.advance(600)
        await replica.round()
    health = await registry.key_health.of([world.acme.tenant_id])
    assert health[world.acme.tenant_id].newest.state is KeyState.ACCESS_DENIED


async def test_a_refused_description_says_nothing_of_uses(
    world: World, registry: SqlRegistry, replica: Replica
) -> None:
    """A key that works is not called denied for want of DescribeKey."""
    world.gate.not_described = DENIED
    await replica.round()
    assert [change.state for change in await registry.key_health.changes(world.acme.tenant_id)] == [KeyState.ENABLED]
    assert shown(replica) is KeyState.ENABLED


async def test_a_key_between_two_states(world: World, replica: Replica) -> None:
    """One that is being made or changed is not called unavailable."""
    world.gate.transitioning = True
    await replica.round()
    assert shown(replica) is KeyState.ENABLED


async def test_a_kms_that_does_not_answer_is_not_pestered(
    world: World, registry: SqlRegistry, replica: Replica
) -> None:
    """An outage says nothing of the key, and is no reason to ask more often."""
    world.gate.lost = KmsUnavailableError("lost")
    for _ in range(3):
        await replica.round()
    assert world.gate.generated == 1
    assert await registry.key_health.of([world.acme.tenant_id]) == {}
