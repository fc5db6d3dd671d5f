"""Asks after keys that nobody uses, so that their health is known before a backup or a restore fails.

A probe is a use: GenerateDataKey with the tenant's own context, which renews the tenant's lease, and at a slower pace
DescribeKey, which knows the date of a deletion. Decrypt is probed only while it is known to be denied. Keys in use
are left alone, whichever replica uses them: the registry knows when each was last seen. Each data centre has a prober
of its own: where KMS does not answer, nobody waits but those who are there.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

import structlog

from keystow_service.acting import PROBING, acting, concerning
from keystow_service.errors import KeystowError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.health import KeyHealthBook, KeyHealthView, described
from keystow_service.model import KeyHealth, KeyState, KmsOperation, Tenant, TenantId
from keystow_service.ports import Clock, KeyHealthRecords, Site

log = structlog.get_logger(__name__)

_SPREAD = 0.25  # of the interval, to either side: replicas that started at once do not probe at once
_ROUNDS_PER_INTERVAL = 4


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """How often. Seconds, save ``at_once`` and ``page``, which count tenants."""

    interval: float = 60.0
    describe_interval: float = 600.0
    at_once: int = 8
    page: int = 500


class KeyProber:
    """Of one data centre. See the module."""

    def __init__(
        self,
        site: Site,
        keys: DataKeys,
        book: KeyHealthBook,
        records: KeyHealthRecords,
        clock: Clock,
        policy: ProbePolicy,
        random: Callable[[], float],
    ) -> None:
        """``random`` gives numbers from 0 to 1."""
        self._site = site
        self._keys = keys
        self._book = book
        self._view = KeyHealthView(book, records)
        self._records = records
        self._clock = clock
        self._policy = policy
        self._random = random
        self._asked: dict[TenantId, float] = {}  # when each was last probed from here, whatever came of it
        self._described: dict[TenantId, float] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        acting.set(PROBING)
        while True:
            await asyncio.sleep(self._policy.interval / _ROUNDS_PER_INTERVAL * (0.5 + self._random()))
            try:
                await self.round()
            except KeystowError as error:
                log.warning("key_probes.delayed", reason=error.reason)
            except Exception as error:  # noqa: BLE001 - the next round may do better, and no other task will
                log.error("key_probes.failed", kind=type(error).__name__)  # noqa: TRY400 - its text may hold secrets

    async def round(self) -> None:
        """Probe those whose turn it is. Raises RegistryUnavailableError."""
        await self._view.refresh()
        slots = asyncio.Semaphore(self._policy.at_once)

        async def probe(tenant: Tenant, known: KeyHealth | None) -> None:
            async with slots:
                with concerning(tenant.tenant_id):
                    await self._probe(tenant, known)

        async with aclosing(self._unobserved()) as pages:
            async for tenants in pages:
                due = list(filter(self._due, tenants))
                known = await self._view.of([tenant.tenant_id for tenant in due])
                async with asyncio.TaskGroup() as probes:
                    for tenant in due:
                        probes.create_task(probe(tenant, known.get(tenant.tenant_id)))

    async def _unobserved(self) -> AsyncGenerator[Sequence[Tenant], None]:
        """All of them, a page at a time: those that KMS did not answer for must not hide the others."""
        since = self._clock.now() - timedelta(seconds=self._policy.interval * (1 - _SPREAD))
        last = ""
        while tenants := await self._records.unobserved(
            since, self._site.data_center.name, start_after=last, limit=self._policy.page
        ):
            yield tenants
            last = tenants[-1].tenant_id

    def _due(self, tenant: Tenant) -> bool:
        """A key that KMS did not answer for is as unseen as before, and still has to wait for its next turn."""
        asked = self._asked.get(tenant.tenant_id)
        wait = self._policy.interval * (1 + _SPREAD * (2 * self._random() - 1))
        return asked is None or self._clock.boottime() - asked >= wait

    async def _probe(self, tenant: Tenant, known: KeyHealth | None) -> None:
        self._asked[tenant.tenant_id] = self._clock.boottime()
        try:
            await self._keys.probe(tenant, opening=known is not None and known.denies(KmsOperation.DECRYPT))
        except KeystowError as error:
            log.debug("key_probe", tenant_id=tenant.tenant_id, reason=error.reason)  # the book has been told
        last = self._described.get(tenant.tenant_id)
        now = self._clock.boottime()
        if last is None or now - last >= self._policy.describe_interval:
            self._described[tenant.tenant_id] = now
            await self._describe(tenant)

    async def _describe(self, tenant: Tenant) -> None:
        try:
            description = await self._site.key_service.describe(tenant.key_arn)
        except KeystowError as error:
            log.debug("key_not_described", tenant_id=tenant.tenant_id, reason=error.reason)
            if self._book.get(tenant.tenant_id) is not None:  # of a key of which nothing is known it tells nothing
                self._book.of(KmsOperation.DESCRIBE_KEY).failed(tenant.tenant_id, error)
            return
        if description.transitioning:
            return  # it is between two states, and will be in one
        known = self._book.get(tenant.tenant_id)
        if description.state is not KeyState.ENABLED or known is not None:  # that a key works, only its use proves
            self._book.observe(tenant.tenant_id, described(description, self._clock.now()))
