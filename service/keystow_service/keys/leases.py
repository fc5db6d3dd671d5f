"""Data keys under leases: the promise that a disabled key stops backup, restore and export within a stated time.

A plaintext data key in memory works on after its KMS key is disabled. So every use of one stands under a lease: proof
that the KMS key answered this service recently. A lease counts from the moment the request to KMS was sent. Until
``refresh`` seconds it is fresh; then one background request renews it; after ``bound`` seconds nothing is sealed or
opened until KMS has answered again, and cached data keys that nobody uses leave the memory. A refusal ends it at once
and drops them. There is no other way to a plaintext data key than through this module.

Sealing and opening have a lease each, because KMS grants GenerateDataKey and Decrypt apart.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from keystow_service.errors import (
    KeyRefusal,
    KeystowError,
    KmsAccessDeniedError,
    KmsGrantInvalidError,
    KmsUnavailableError,
    WrappedKeyInvalidError,
)
from keystow_service.model import DataKey, KeyArn, Tenant, TenantId
from keystow_service.ports import TENANT_CONTEXT, Clock, EncryptionContext, KeyService, Sites, site_of

log = structlog.get_logger(__name__)

# KMS refuses these per operation and principal; every other refusal is about the key itself.
_REFUSES_ONE_OPERATION = (KmsAccessDeniedError, KmsGrantInvalidError)


_WARNING_INTERVAL = 60.0  # seconds between two of the same warning about one tenant


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How long one answer of KMS counts. All times in seconds, ``refresh`` < ``bound``."""

    refresh: float = 30.0
    bound: float = 60.0
    # While renewals fail for reasons that are not a refusal, KMS is asked no more often than this.
    retry_interval: float = 1.0
    data_key_max_objects: int = 100_000
    opened_keys_max: int = 1_000  # per tenant


class KeyObserver(Protocol):
    """Is told what each use of a tenant's key showed."""

    def succeeded(self, tenant_id: TenantId, request_id: str) -> None:
        """KMS did as asked, by its request of that id."""
        ...

    def failed(self, tenant_id: TenantId, error: KeystowError) -> None:
        """KMS refused, or did not answer."""
        ...


class HeldKey:
    """A plaintext data key in use by one stream. Call ``hold`` before every segment and before commit."""

    __slots__ = ("_hold", "_lease", "data_key")

    def __init__(self, key: DataKey, lease: "_Lease", hold: Callable[[], Awaitable[None]]) -> None:
        self.data_key = key
        self._lease = lease
        self._hold = hold

    async def hold(self) -> None:
        """Return at once under a live lease, else after KMS has answered. Raises what KMS answers."""
        await self._hold()

    def remaining(self) -> float:
        """Seconds until the lease reaches its bound, as of now: a renewal extends it. 0 or less when it is closed."""
        return self._lease.remaining()


class _Lease:
    """The proof itself, for one tenant and one operation."""

    __slots__ = ("_clock", "_policy", "_proven_at", "_retry_at", "refusals")

    def __init__(self, clock: Clock, policy: LeasePolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._proven_at: float | None = None
        self.refusals = 0
        self._retry_at = float("-inf")

    def _age(self) -> float:
        return float("inf") if self._proven_at is None else self._clock.boottime() - self._proven_at

    def live(self) -> bool:
        return self._age() < self._policy.bound

    def remaining(self) -> float:
        return self._policy.bound - self._age()

    def due(self) -> bool:
        """Whether a background renewal should be started."""
        return self._age() >= self._policy.refresh and self._clock.boottime() >= self._retry_at

    def prove(self, sent_at: float, refusals: int) -> bool:
        """KMS answered a request of that time. False if it has refused one since: ``refusals`` is the count then."""
        if refusals != self.refusals:
            return False
        self._proven_at = sent_at if self._proven_at is None else max(sent_at, self._proven_at)
        return True

    def close(self) -> None:
        """KMS refused just now."""
        self._proven_at = None
        self.refusals += 1

    def postpone(self) -> None:
        """A renewal failed without a refusal: the lease runs to its bound."""
        self._retry_at = self._clock.boottime() + self._policy.retry_interval


@dataclass(slots=True)
class _TenantKeys:
    """All that is cached for one tenant."""

    tenant_id: TenantId
    arn: KeyArn
    service: KeyService
    context: EncryptionContext
    sealing: _Lease
    opening: _Lease
    seal_key: DataKey | None = None
    seal_key_objects: int = 0
    opened: OrderedDict[bytes, DataKey] = field(default_factory=OrderedDict)  # by wrapped key, oldest use first
    requests: dict[bytes, asyncio.Task[DataKey]] = field(default_factory=dict)  # unwraps under way, by wrapped key
    generation: asyncio.Task[DataKey] | None = None  # the GenerateDataKey under way
    expiry: asyncio.TimerHandle | None = None  # of what is cached
    warned: tuple[str, float] = ("", 0.0)  # of what, and when

    def drop(self) -> None:
        self.seal_key = None
        self.opened.clear()

    def keep(self) -> None:
        """See that what is cached is dropped once its lease is over: one timer, set again while leases are renewed."""
        if self.expiry is None:
            leases = [self.sealing] * (self.seal_key is not None) + [self.opening] * bool(self.opened)
            if leases:
                left = min(lease.remaining() for lease in leases)
                self.expiry = asyncio.get_running_loop().call_later(max(left, 0), self._expire)

    def _expire(self) -> None:
        self.expiry = None
        if not self.sealing.live():
            self.seal_key = None
        if not self.opening.live():
            self.opened.clear()
        self.keep()

    def close(self) -> None:
        self.drop()
        if self.expiry is not None:
            self.expiry.cancel()


class DataKeys:
    """The data keys of all tenants, each under its lease. One instance a process."""

    def __init__(
        self, sites: Sites, deployment_id: str, clock: Clock, policy: LeasePolicy, observer: KeyObserver
    ) -> None:
        self._sites = sites
        self._deployment_id = deployment_id
        self._clock = clock
        self._policy = policy
        self._observer = observer
        self._tenants: dict[TenantId, _TenantKeys] = {}
        self._tasks: set[asyncio.Task[DataKey]] = set()

    async def for_sealing(self, tenant: Tenant) -> HeldKey:
        """A data key for one new object. Raises KeyRefusal, Kms… errors."""
        keys = self._of(tenant)
        hold = partial(self._hold_sealing, keys)
        await hold()
        key = keys.seal_key
        if key is None or keys.seal_key_objects >= self._policy.data_key_max_objects:
            key = await self._generate(keys)
        keys.seal_key_objects += 1
        return HeldKey(key, keys.sealing, hold)

    async def for_opening(self, tenant: Tenant, wrapped: bytes) -> HeldKey:
        """The data key of a stored object. Raises KeyRefusal, WrappedKeyInvalidError, Kms… errors."""
        keys = self._of(tenant)
        hold = partial(self._hold_opening, keys, wrapped)
        await hold()
        key = keys.opened.get(wrapped)
        if key is None:
            key = await self._unwrap(keys, wrapped)
        else:
            keys.opened.move_to_end(wrapped)
        return HeldKey(key, keys.opening, hold)

    async def for_resuming(self, tenant: Tenant, wrapped: bytes) -> HeldKey:
        """The data key of an object whose sealing goes on: unwrapped under the one lease, used under the other.

        Raises as for_opening.
        """
        opened = await self.for_opening(tenant, wrapped)
        keys = self._of(tenant)
        hold = partial(self._hold_sealing, keys)
        await hold()
        return HeldKey(opened.data_key, keys.sealing, hold)

    async def probe(self, tenant: Tenant) -> None:
        """Use the key if nobody has lately, and keep no data key for a tenant that has none. Raises as for_sealing."""
        keys = self._of(tenant)
        if not keys.sealing.due():
            return
        if keys.seal_key is None:
            await self._ask(keys, keys.sealing, lambda: keys.service.generate_data_key(keys.arn, keys.context))
        else:
            await self._generate(keys)

    async def aclose(self) -> None:
        """Stop renewing and forget every key."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for keys in self._tenants.values():
            keys.close()
        self._tenants.clear()

    def _of(self, tenant: Tenant) -> _TenantKeys:
        keys = self._tenants.get(tenant.tenant_id)
        if keys is None:
            keys = _TenantKeys(
                tenant.tenant_id,
                tenant.key_arn,
                site_of(self._sites, tenant).key_service,
                encryption_context(tenant.tenant_id, self._deployment_id),
                _Lease(self._clock, self._policy),
                _Lease(self._clock, self._policy),
            )
            self._tenants[tenant.tenant_id] = keys
        return keys

    async def _hold_sealing(self, keys: _TenantKeys) -> None:
        if keys.sealing.live():
            if keys.sealing.due():
                self._start_generate(keys)
            return
        while not keys.sealing.live():
            await self._generate(keys)

    async def _hold_opening(self, keys: _TenantKeys, wrapped: bytes) -> None:
        if keys.opening.live():
            if keys.opening.due() and not keys.requests:
                self._start_unwrap(keys, wrapped)
            return
        # Any data key that KMS unwraps proves the lease for all: wait for the one under way rather than ask as well.
        while not keys.opening.live():
            own = wrapped in keys.requests or not keys.requests
            try:
                await (self._unwrap(keys, wrapped) if own else asyncio.shield(next(iter(keys.requests.values()))))
            except WrappedKeyInvalidError:
                if own:
                    raise  # another's says nothing of this one

    # One request at a time serves all who wait for it; shielded, so that the one who gives up takes it from nobody.

    async def _generate(self, keys: _TenantKeys) -> DataKey:
        return await asyncio.shield(self._start_generate(keys))

    async def _unwrap(self, keys: _TenantKeys, wrapped: bytes) -> DataKey:
        return await asyncio.shield(self._start_unwrap(keys, wrapped))

    def _start_generate(self, keys: _TenantKeys) -> asyncio.Task[DataKey]:
        if keys.generation is None:
            task = asyncio.create_task(self._request_data_key(keys))
            keys.generation = task
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, keys))
        return keys.generation

    def _start_unwrap(self, keys: _TenantKeys, wrapped: bytes) -> asyncio.Task[DataKey]:
        task = keys.requests.get(wrapped)
        if task is None:
            task = asyncio.create_task(self._request_unwrap(keys, wrapped))
            keys.requests[wrapped] = task
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, keys))
        return task

    def _finished(self, keys: _TenantKeys, task: asyncio.Task[DataKey]) -> None:
        """A background renewal has nobody who awaits it; whoever needs the key next asks again and is told."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, WrappedKeyInvalidError):
            return
        reason, now = getattr(error, "reason", "INTERNAL"), self._clock.boottime()
        warned_of, warned_at = keys.warned
        if reason != warned_of or now - warned_at >= _WARNING_INTERVAL:
            keys.warned = (reason, now)
            log.warning("kms_request_failed", tenant_id=keys.tenant_id, key_arn=keys.arn.text, reason=reason)

    async def _request_data_key(self, keys: _TenantKeys) -> DataKey:
        try:
            key = await self._ask(keys, keys.sealing, lambda: keys.service.generate_data_key(keys.arn, keys.context))
            keys.seal_key = key
            keys.seal_key_objects = 0
            keys.keep()
            return key
        finally:
            keys.generation = None

    async def _request_unwrap(self, keys: _TenantKeys, wrapped: bytes) -> DataKey:
        try:
            key = await self._ask(keys, keys.opening, lambda: keys.service.unwrap(keys.arn, wrapped, keys.context))
            keys.opened[wrapped] = key
            keys.opened.move_to_end(wrapped)
            while len(keys.opened) > self._policy.opened_keys_max:
                keys.opened.popitem(last=False)
            keys.keep()
            return key
        finally:
            del keys.requests[wrapped]

    async def _ask(self, keys: _TenantKeys, lease: _Lease, request: Callable[[], Awaitable[DataKey]]) -> DataKey:
        while True:
            sent_at, refusals = self._clock.boottime(), lease.refusals
            try:
                answer = await request()
            except KeyRefusal as error:
                self._refused(keys, lease, error)
                raise
            except WrappedKeyInvalidError:
                raise  # is about one object's data key, and says nothing of the KMS key
            except Exception as error:
                lease.postpone()
                if isinstance(error, KeystowError):
                    self._observer.failed(keys.tenant_id, error)
                raise
            if lease.prove(sent_at, refusals):
                self._observer.succeeded(keys.tenant_id, answer.request_id)
                if not lease.live():
                    raise KmsUnavailableError(
                        f"KMS took longer than lease_bound ({self._policy.bound:g} s) to answer. Try again; if this "
                        "lasts, the service's operator must raise lease_bound.",
                        retry_after=1.0,
                        key_arn=keys.arn.text,
                    )
                return answer
            # A refusal overtook this answer, which was given before it: it proves nothing. Ask again.

    def _refused(self, keys: _TenantKeys, lease: _Lease, error: KeyRefusal) -> None:
        lease.close()
        keys.drop()
        self._observer.failed(keys.tenant_id, error)
        if not isinstance(error, _REFUSES_ONE_OPERATION):
            for other in self._tenants.values():
                if other.arn == keys.arn:
                    other.sealing.close()
                    other.opening.close()
                    other.drop()


def encryption_context(tenant_id: TenantId, deployment_id: str) -> EncryptionContext:
    """What every KMS request carries and CloudTrail shows in clear: opaque ids only.

    https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html
    """
    return {
        TENANT_CONTEXT: tenant_id,
        "keystow:deployment": deployment_id,
        "keystow:purpose": "data-key",
    }
