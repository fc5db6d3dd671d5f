"""Data keys under leases: the promise that a disabled key stops backup, restore and export within a stated time.

A plaintext data key in memory works on after its KMS key is disabled. So every use of one stands under a lease: proof
that the KMS key answered this service recently (lease.py). While it is fresh, uses cost nothing; then one background
request renews it; once it is over, nothing is sealed or opened until KMS has answered again, and cached data keys that
nobody uses leave the memory. A refusal ends it at once and drops them. There is no other way to a plaintext data key
than through this module.

Sealing and opening have a lease each, because KMS grants GenerateDataKey and Decrypt apart.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from keystow_service.errors import KeyRefusal, KmsAccessDeniedError, KmsGrantInvalidError
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.keys.held_key import HeldKey
from keystow_service.keys.lease import Lease, LeasePolicy
from keystow_service.keys.opening_keys import OpeningKeys
from keystow_service.keys.peer_waits import PeerWaits
from keystow_service.keys.proving import FailureLog, KeyObserver, Proving, TenantKey
from keystow_service.keys.sealing_keys import SealingKeys
from keystow_service.model import KeyArn, KmsOperation, Tenant, TenantId
from keystow_service.ports import Clock, Sites, site_of

# KMS refuses these per operation and principal; every other refusal is about the key itself.
_REFUSES_ONE_OPERATION = (KmsAccessDeniedError, KmsGrantInvalidError)


@dataclass(frozen=True, slots=True)
class _TenantKeys:
    """All that is known of one tenant."""

    sealing: SealingKeys
    opening: OpeningKeys

    def drop(self) -> None:
        self.sealing.drop()
        self.opening.drop()

    async def aclose(self) -> None:
        await self.sealing.aclose()
        await self.opening.aclose()


class KeyObservers(Protocol):
    """One for each operation of KMS, because it grants them apart."""

    def of(self, operation: KmsOperation) -> KeyObserver:
        """Is told what that one showed."""
        ...


class DataKeys:
    """The data keys of all tenants, each under its lease. One instance a process."""

    def __init__(
        self, sites: Sites, deployment_id: str, clock: Clock, policy: LeasePolicy, observers: KeyObservers
    ) -> None:
        self._sites = sites
        self._deployment_id = deployment_id
        self._clock = clock
        self._policy = policy
        self._observers = observers
        self._under: dict[KeyArn, dict[TenantId, _TenantKeys]] = {}

    async def for_sealing(self, tenant: Tenant) -> HeldKey:
        """A data key for one new object. Raises KeyRefusal, Kms… errors."""
        return await self._of(tenant).sealing.for_object()

    async def for_opening(self, tenant: Tenant, wrapped: bytes) -> HeldKey:
        """The data key of a stored object. Raises KeyRefusal, WrappedKeyInvalidError, Kms… errors."""
        return await self._of(tenant).opening.for_object(wrapped)

    async def for_resuming(self, tenant: Tenant, wrapped: bytes) -> HeldKey:
        """The data key of an object whose sealing goes on: unwrapped under the one lease, used under the other.

        Raises as for_opening.
        """
        keys = self._of(tenant)
        opened = await keys.opening.for_object(wrapped)
        await keys.sealing.hold()
        return keys.sealing.held(opened.data_key, cached=True)

    async def probe(self, tenant: Tenant, *, opening: bool = False) -> None:
        """Use the key if nobody has lately, and keep no data key for a tenant that has none. Raises as for_sealing.

        ``opening``: unwrap that data key, too, whoever has unwrapped others lately.
        """
        keys = self._of(tenant)
        wrapped = await keys.sealing.probe()
        if opening and wrapped is not None:
            await keys.opening.probe(wrapped)

    async def aclose(self) -> None:
        """Stop renewing and forget every key."""
        for tenants in self._under.values():
            for keys in tenants.values():
                await keys.aclose()
        self._under.clear()

    def _of(self, tenant: Tenant) -> _TenantKeys:
        tenants = self._under.setdefault(tenant.key_arn, {})
        keys = tenants.get(tenant.tenant_id)
        if keys is None:
            keys = tenants[tenant.tenant_id] = self._new(tenant)
        return keys

    def _new(self, tenant: Tenant) -> _TenantKeys:
        key = TenantKey(
            tenant.tenant_id,
            tenant.key_arn,
            site_of(self._sites, tenant).key_service,
            encryption_context(tenant.tenant_id, self._deployment_id),
        )
        failures = FailureLog(key, self._clock)
        policy = self._policy

        def waits() -> PeerWaits:
            return PeerWaits(Lease(self._clock, policy), policy, self._clock)

        def proving(under: PeerWaits, operation: KmsOperation) -> Proving:
            refused = partial(self._refused, key.arn, under)
            return Proving(key, under.lease, policy, self._observers.of(operation), refused)

        sealing, opening = waits(), waits()
        return _TenantKeys(
            SealingKeys(key, sealing, policy, proving(sealing, KmsOperation.GENERATE_DATA_KEY), failures),
            OpeningKeys(key, opening, policy, proving(opening, KmsOperation.DECRYPT), failures),
        )

    def _refused(self, arn: KeyArn, own: PeerWaits, error: KeyRefusal) -> None:
        """Every cached data key of that KMS key is dropped; leases end where the refusal is about what they prove."""
        own.refused(error)
        for keys in self._under.get(arn, {}).values():
            keys.drop()
            if not isinstance(error, _REFUSES_ONE_OPERATION):
                keys.sealing.waits.refused(error)
                keys.opening.waits.refused(error)
