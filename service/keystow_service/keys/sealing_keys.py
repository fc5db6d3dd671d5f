"""One tenant's data keys for sealing: each serves many objects, under the lease that GenerateDataKey renews."""

import asyncio
from dataclasses import dataclass
from functools import partial

from keystow_service.audit import KeyUse
from keystow_service.keys import haste
from keystow_service.keys.expiry import Expiry
from keystow_service.keys.held_key import HeldKey
from keystow_service.keys.lease import LeasePolicy
from keystow_service.keys.peer_waits import PeerWaits
from keystow_service.keys.proving import FailureLog, Proving, TenantKey
from keystow_service.keys.shared_request import SharedRequest, SharedRequests
from keystow_service.model import DataKey


@dataclass(slots=True, eq=False)
class _Generated:
    """A data key, and how many objects it was given out for."""

    key: DataKey
    objects: int = 0


class SealingKeys:
    """See the module."""

    def __init__(
        self, key: TenantKey, waits: PeerWaits, policy: LeasePolicy, proving: Proving, failures: FailureLog
    ) -> None:
        self.waits = waits
        self.lease = waits.lease
        self._key = key
        self._policy = policy
        self._proving = proving
        self._failures = failures
        self._newest: _Generated | None = None
        self._requests = SharedRequests[_Generated]()
        self._request: SharedRequest[_Generated] | None = None  # the one that whoever comes now shares
        self._wanted = asyncio.Event()  # it is, by anybody but a probe
        self._expiry = Expiry(self.lease, self.drop)

    async def for_object(self) -> HeldKey:
        """A data key for one new object. Raises KeyRefusal, Kms… errors."""
        begun = self.lease.sent
        generated = self._newest if self.lease.live() else None
        cached = generated is not None
        self._renew_if_due()
        while generated is None or generated.objects >= self._policy.data_key_max_objects:
            generated, cached = await self._generate().answer(), False
            if not self.lease.serves(begun):
                generated = None
        generated.objects += 1
        return self.held(generated.key, cached=cached)

    def held(self, key: DataKey, *, cached: bool) -> HeldKey:
        """This data key, for one object, now that the lease is held."""
        return HeldKey(key, self.waits, self.hold, self._generate, self._key.arn, KeyUse.SEAL, cached=cached)

    async def hold(self) -> None:
        """See HeldKey.hold."""
        begun = self.lease.sent
        self._renew_if_due()
        while not self.lease.serves(begun):
            await self._generate().answer()

    async def probe(self) -> bytes | None:
        """See DataKeys.probe. Gives a data key's ciphertext if there is one at hand."""
        newest = self._newest
        if self.lease.due():
            newest = await self._generate(wanted=newest is not None).answer()
        return newest.key.wrapped if newest else None

    def drop(self) -> None:
        """Forget what is cached."""
        self._newest = None

    async def aclose(self) -> None:
        """Ask no more, and forget every key."""
        await self._requests.aclose()
        self.waits.close()
        self._expiry.close()

    def _renew_if_due(self) -> None:
        if self.lease.live() and self.lease.due():
            self._generate()

    def _generate(self, *, wanted: bool = True) -> SharedRequest[_Generated]:
        """The request under way, or a new one. What nobody ``wanted`` is not cached, nor warned of if it fails."""
        if self._request is None:
            own = self._wanted = asyncio.Event()
            self._request = self._requests.begin(self._ask(own), partial(self._finished, own))
        if wanted:
            self._wanted.set()
        return self._request

    async def _ask(self, wanted: asyncio.Event) -> _Generated:
        key = self._key
        haste.wanted.set(wanted)
        let_go = partial(self._let_go, wanted)
        try:
            made = _Generated(await self._proving(lambda: key.service.generate_data_key(key.arn, key.context), let_go))
            if wanted.is_set():
                self._newest = made
                self._expiry.watch()
            return made
        finally:
            let_go()

    def _let_go(self, wanted: asyncio.Event) -> None:
        if wanted is self._wanted:
            self._request = None

    def _finished(self, wanted: asyncio.Event, task: asyncio.Task[_Generated]) -> None:
        if wanted.is_set():
            self._failures.finished(task)
