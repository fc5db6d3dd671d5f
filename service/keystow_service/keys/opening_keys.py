"""One tenant's data keys of stored objects: each unwrapped once, under the lease that Decrypt renews."""

from collections import OrderedDict
from functools import partial

from keystow_service.audit import KeyUse
from keystow_service.errors import WrappedKeyInvalidError
from keystow_service.keys.expiry import Expiry
from keystow_service.keys.held_key import HeldKey
from keystow_service.keys.lease import LeasePolicy
from keystow_service.keys.peer_waits import PeerWaits
from keystow_service.keys.proving import FailureLog, Proving, TenantKey
from keystow_service.keys.shared_request import SharedRequest, SharedRequests
from keystow_service.model import DataKey


class OpeningKeys:
    """See the module. What is cached stands under one tenant, KMS key and context, by its ciphertext."""

    def __init__(
        self, key: TenantKey, waits: PeerWaits, policy: LeasePolicy, proving: Proving, failures: FailureLog
    ) -> None:
        self.waits = waits
        self.lease = waits.lease
        self._key = key
        self._policy = policy
        self._proving = proving
        self._failures = failures
        self._opened: OrderedDict[bytes, DataKey] = OrderedDict()  # by wrapped key, oldest use first
        self._requests = SharedRequests[DataKey]()
        self._shared: dict[bytes, SharedRequest[DataKey]] = {}  # by wrapped key, those that whoever comes now shares
        self._expiry = Expiry(self.lease, self.drop)

    async def for_object(self, wrapped: bytes) -> HeldKey:
        """The data key of a stored object. Raises KeyRefusal, WrappedKeyInvalidError, Kms… errors."""
        key = await self._hold(wrapped)
        cached = False
        if key is None and (key := self._opened.get(wrapped)) is not None:
            cached = True
            self._opened.move_to_end(wrapped)
        if key is None:
            key = await self._unwrap(wrapped).answer()
        hold, renew = partial(self._hold, wrapped), partial(self._renew, wrapped)
        return HeldKey(key, self.waits, hold, renew, self._key.arn, KeyUse.OPEN, cached=cached)

    async def probe(self, wrapped: bytes) -> None:
        """Ask KMS to unwrap it, and keep nothing of that. Raises as for_object."""
        key = self._key
        await self._proving(lambda: key.service.unwrap(key.arn, wrapped, key.context))

    def drop(self) -> None:
        """Forget what is cached."""
        self._opened.clear()

    async def aclose(self) -> None:
        """Ask no more, and forget every key."""
        await self._requests.aclose()
        self.waits.close()
        self._expiry.close()

    async def _hold(self, wrapped: bytes) -> DataKey | None:
        """See HeldKey.hold. Gives the data key if KMS unwrapped it for this use."""
        begun = self.lease.sent
        if self.lease.live() and self.lease.due():
            self._renew(wrapped)
        key = None
        # Any data key that KMS unwraps proves the lease for all: wait for the one under way rather than ask as well.
        while not self.lease.serves(begun):
            own = wrapped in self._shared or not self._shared
            request = self._unwrap(wrapped) if own else next(iter(self._shared.values()))
            try:
                answer = await request.answer()
            except WrappedKeyInvalidError:
                if own:
                    raise  # another's says nothing of this one
            else:
                key = answer if own else key
        return key

    def _renew(self, wrapped: bytes) -> None:
        if not self._shared:
            self._unwrap(wrapped)

    def _unwrap(self, wrapped: bytes) -> SharedRequest[DataKey]:
        """The request under way, or a new one."""
        request = self._shared.get(wrapped)
        if request is None:
            request = self._shared[wrapped] = self._requests.begin(self._ask(wrapped), self._failures.finished)
        return request

    async def _ask(self, wrapped: bytes) -> DataKey:
        tenant = self._key
        let_go = partial(self._let_go, wrapped, self._shared[wrapped])
        try:
            key = await self._proving(lambda: tenant.service.unwrap(tenant.arn, wrapped, tenant.context), let_go)
            self._opened[wrapped] = key
            self._opened.move_to_end(wrapped)
            while len(self._opened) > self._policy.opened_keys_max:
                self._opened.popitem(last=False)
            self._expiry.watch()
            return key
        finally:
            let_go()

    def _let_go(self, wrapped: bytes, request: SharedRequest[DataKey]) -> None:
        if self._shared.get(wrapped) is request:
            del self._shared[wrapped]
