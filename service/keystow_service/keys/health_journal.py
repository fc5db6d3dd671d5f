"""Takes what this process sees of the tenants' own keys to the registry, in the background, and tells of every change.

The promise: every change of state gets there, in order, as soon as the registry answers, and with it the last that was
seen before; what only repeats is written once in a while. Of all replicas that see a change the one whose observation
makes it in the registry tells of it: once, and also if the state before was seen by a process that is no more, or if
the registry's answer was lost. No use of a key waits for any of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from keystow_service.acting import acting
from keystow_service.audit import Action, KeyStateChanged
from keystow_service.errors import KeystowError, TenantNotFoundError
from keystow_service.model import (
    KeyHealth,
    KeyHealthStep,
    KeyManagement,
    KeyObservation,
    KeyState,
    TenantId,
)
from keystow_service.ports import KeyHealthRecords, TenantRegistry

log = structlog.get_logger(__name__)

_RETRY_INTERVAL = 5.0
_LAST_CHANCE = 2.0  # seconds for what is unwritten when the service stops
_MAX_UNWRITTEN = 10_000


@dataclass(frozen=True, slots=True)
class _Noted:
    """What the registry says of one key, or will say, as far as is known here; and when the last of it was seen."""

    health: KeyHealth
    time: datetime

    def says(self, seen: KeyObservation) -> bool:
        """Whether it says already what was seen, its time aside."""
        health = self.health.then(seen)
        return (health.newest.state, health.shown_by) == (self.health.newest.state, self.health.shown_by)


@dataclass(frozen=True, slots=True)
class _Sight:
    """An observation, and for whom the request was made that showed it."""

    seen: KeyObservation
    action: Action


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """What is to be written, and what it makes of all that this process has seen."""

    tenant_id: TenantId
    sight: _Sight
    here: KeyHealthStep


class KeyHealthJournal:
    """See the module."""

    def __init__(
        self,
        registry: TenantRegistry,
        records: KeyHealthRecords,
        changed: Callable[[KeyStateChanged], None],
        *,
        interval: float,
        retry_interval: float = _RETRY_INTERVAL,
        max_unwritten: int = _MAX_UNWRITTEN,
    ) -> None:
        """``changed`` is told of changes.

        An observation that only repeats is written when the one before is ``interval`` seconds old.
        """
        self._registry = registry
        self._records = records
        self._changed = changed
        self._interval = interval
        self._retry_interval = retry_interval
        self._max_unwritten = max_unwritten
        self._noted: dict[TenantId, _Noted] = {}
        self._repeated: dict[TenantId, _Sight] = {}  # the last after that
        self._unwritten: deque[_Unwritten] = deque()
        self._repeats = False  # the first of them, which the registry may have taken without our having its answer
        self._full = False
        self._work = asyncio.Event()
        self._writing: asyncio.Task[bool] | None = None

    def note(self, tenant_id: TenantId, seen: KeyObservation) -> None:
        """Take over an observation."""
        who = acting.get()
        sight = _Sight(seen, Action(who.request_id, who.caller.principal, who.operation, tenant_id))
        noted = self._noted.get(tenant_id)
        if noted is not None and noted.says(seen) and (seen.time - noted.time).total_seconds() < self._interval:
            self._repeated[tenant_id] = sight
            return
        before = self._repeated.get(tenant_id)
        new = [sight] if before is None or before.seen.state is seen.state else [before, sight]
        if len(self._unwritten) + len(new) > self._max_unwritten:
            self._refuse()
            return
        self._repeated.pop(tenant_id, None)
        health = noted.health if noted else None
        for each in new:
            step = KeyHealthStep.of(health, each.seen)
            health = step.after
            self._noted[tenant_id] = _Noted(health, each.seen.time)
            self._unwritten.append(_Unwritten(tenant_id, each, step))
        self._work.set()

    async def run(self) -> None:
        """Write, until cancelled; then make a last attempt at what is unwritten."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                await self._write()
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._write(), _LAST_CHANCE)
            if self._writing is not None:
                self._writing.cancel()

    def _refuse(self) -> None:
        """What is not noted is news when it is seen again."""
        if not self._full:
            self._full = True
            log.error("key_health.full", unwritten=len(self._unwritten))

    async def _write(self) -> None:
        """All there is, however long it takes the registry to answer."""
        while self._unwritten:
            # A task of its own: what was written when the service stops must be told as well.
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_first())
            written = await asyncio.shield(self._writing)
            self._writing = None
            if not written:
                await asyncio.sleep(self._retry_interval)

    async def _write_first(self) -> bool:
        """False if the registry does not answer."""
        first = self._unwritten[0]
        try:
            recorded, change = await self._recorded(first)
            self._adopt(first, recorded)
            self._tell(first.sight.action, change)
        except TenantNotFoundError:
            pass  # the registry was put back to an earlier state
        except KeystowError as error:
            log.warning("key_health.delayed", reason=error.reason, unwritten=len(self._unwritten))
            self._repeats = True
            return False
        except Exception as error:  # noqa: BLE001 - what can never be written must not keep the rest from it
            log.error("key_health.not_recorded", tenant_id=first.tenant_id, kind=type(error).__name__)  # noqa: TRY400 - its text may hold secrets
        self._unwritten.popleft()
        self._repeats = self._full = False
        return True

    async def _recorded(self, unwritten: _Unwritten) -> tuple[KeyHealth, KeyHealthStep]:
        """What is known now, and the step that this observation made."""
        tenant = await self._registry.get(unwritten.tenant_id)
        if tenant.key_management is not KeyManagement.SELF:
            return unwritten.here.after, unwritten.here
        step = await self._records.observe(tenant.tenant_id, unwritten.sight.seen)
        made_before = None
        if self._repeats and not step.changes_state:
            made_before = await self._made_before(tenant.tenant_id, unwritten.sight.seen)
        return step.after, made_before or step

    async def _made_before(self, tenant_id: TenantId, seen: KeyObservation) -> KeyHealthStep | None:
        """The change that this very observation made when the registry's answer was lost."""
        changes = await self._records.changes(tenant_id)
        change = replace(seen, operation=None)  # as it is remembered
        if change not in changes:
            return None
        at = changes.index(change)
        return KeyHealthStep(KeyHealth.first(changes[at - 1]) if at else None, KeyHealth.first(change))

    def _adopt(self, written: _Unwritten, recorded: KeyHealth) -> None:
        """Others write there, too: what only repeats here may be news to the registry."""
        noted = self._noted[written.tenant_id]
        if noted.health is written.here.after:  # nothing more is on its way
            self._noted[written.tenant_id] = _Noted(recorded, noted.time)

    def _tell(self, action: Action, step: KeyHealthStep) -> None:
        seen = step.after.newest
        if not step.changes_state or (step.before is None and seen.state is KeyState.ENABLED):
            return  # as it was, or as it should be
        previous = step.before.newest.state if step.before else None
        self._changed(KeyStateChanged(action, seen.state, previous, seen.reason, seen.request_id, seen.deletion_time))
        tell = log.info if seen.state is KeyState.ENABLED else log.warning
        tell(
            "key_state_changed",
            tenant_id=action.tenant_id,
            key_state=seen.state.value,
            previous=previous.value if previous else "",
            reason=seen.reason,
            aws_request_id=seen.request_id,
            deletion_time=seen.deletion_time.isoformat() if seen.deletion_time else "",
        )
