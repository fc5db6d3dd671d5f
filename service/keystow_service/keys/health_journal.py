"""Takes what this process sees of the tenants' own keys to the registry, in the background.

The promise: every change of state gets there, in order, as soon as the registry answers, and with it the last that was
seen before; what only repeats is written once in a while. No use of a key waits for it.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from keystow_service.errors import KeystowError, TenantNotFoundError
from keystow_service.model import KeyHealth, KeyManagement, KeyObservation, TenantId
from keystow_service.ports import KeyHealthRecords, TenantRegistry

log = structlog.get_logger(__name__)

_RETRY_INTERVAL = 5.0
_LAST_CHANCE = 2.0  # seconds for what is unwritten when the service stops
_MAX_UNWRITTEN = 10_000


@dataclass(frozen=True, slots=True)
class _Noted:
    """What was, or will be, written of one key: what it comes to, and when the last of it was seen."""

    health: KeyHealth
    time: datetime

    def then(self, seen: KeyObservation) -> "_Noted":
        return _Noted(self.health.then(seen), seen.time)

    def says(self, seen: KeyObservation) -> bool:
        """Whether it says already what was seen, its time aside."""
        health = self.health.then(seen)
        return (health.newest.state, health.shown_by) == (self.health.newest.state, self.health.shown_by)


class KeyHealthJournal:
    """See the module."""

    def __init__(
        self,
        registry: TenantRegistry,
        records: KeyHealthRecords,
        *,
        interval: float,
        retry_interval: float = _RETRY_INTERVAL,
    ) -> None:
        """An observation that only repeats is written when the one before is ``interval`` seconds old."""
        self._registry = registry
        self._records = records
        self._interval = interval
        self._retry_interval = retry_interval
        self._noted: dict[TenantId, _Noted] = {}
        self._repeated: dict[TenantId, KeyObservation] = {}  # the last after that
        self._unwritten: deque[tuple[TenantId, KeyObservation]] = deque()
        self._work = asyncio.Event()

    def note(self, tenant_id: TenantId, seen: KeyObservation) -> None:
        """Take over an observation."""
        noted = self._noted.get(tenant_id)
        if noted is not None and noted.says(seen) and (seen.time - noted.time).total_seconds() < self._interval:
            self._repeated[tenant_id] = seen
            return
        before = self._repeated.pop(tenant_id, None)
        if noted is not None and before is not None and before.state is not seen.state:
            noted = noted.then(before)
            self._queue(tenant_id, before)
        self._noted[tenant_id] = noted.then(seen) if noted else _Noted(KeyHealth.first(seen), seen.time)
        self._queue(tenant_id, seen)

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

    def _queue(self, tenant_id: TenantId, seen: KeyObservation) -> None:
        if len(self._unwritten) < _MAX_UNWRITTEN:
            self._unwritten.append((tenant_id, seen))
            self._work.set()
        else:
            log.error("key_health.not_recorded", tenant_id=tenant_id, key_state=seen.state.value)

    async def _write(self) -> None:
        """All there is, however long it takes the registry to answer."""
        while self._unwritten:
            tenant_id, seen = self._unwritten[0]
            try:
                tenant = await self._registry.get(tenant_id)
                if tenant.key_management is KeyManagement.SELF:
                    await self._records.observe(tenant_id, seen)
            except TenantNotFoundError:
                pass  # a key that was only checked
            except KeystowError as error:
                log.warning("key_health.delayed", reason=error.reason, unwritten=len(self._unwritten))
                await asyncio.sleep(self._retry_interval)
                continue
            except Exception as error:  # noqa: BLE001 - what can never be written must not keep the rest from it
                log.error("key_health.not_recorded", tenant_id=tenant_id, kind=type(error).__name__)  # noqa: TRY400 - its text may hold secrets
            self._unwritten.popleft()
