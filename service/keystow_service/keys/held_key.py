"""A plaintext data key in use by one stream, on behalf of whoever took it."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

from keystow_service.acting import acting
from keystow_service.audit import KeyUse
from keystow_service.keys.peer_waits import PeerWait, PeerWaits
from keystow_service.model import DataKey, KeyArn


class HeldKey:
    """Call ``hold`` before every use: each segment that is sealed or opened, and the commit.

    And wait for the stream's client inside of ``with waiting()``.
    """

    __slots__ = ("_arn", "_hold", "_proof", "_renew", "_use", "_uses", "_waits", "data_key")

    def __init__(
        self,
        key: DataKey,
        waits: PeerWaits,
        hold: Callable[[], Awaitable[object]],
        renew: Callable[[], object],
        arn: KeyArn,
        use: KeyUse,
        *,
        cached: bool,
    ) -> None:
        """``renew`` asks KMS in the background, if it is not being asked already.

        ``cached``: the data key was in memory; else KMS was waited for.
        """
        self.data_key = key
        self._waits = waits
        self._hold = hold
        self._renew = renew
        self._arn = arn
        self._use = use
        self._uses = acting.get().key_uses
        self._uses.taken(arn, use, cached=cached)
        self._rest_on(key.request_id)
        self._proof = waits.lease.proof
        self._rest_on(self._proof)

    async def hold(self) -> None:
        """Return at once under a live lease, else after KMS has answered. Raises what KMS answers."""
        await self._hold()
        if self._waits.lease.proof != self._proof:
            self._proof = self._waits.lease.proof
            self._rest_on(self._proof)

    def confirmed(self) -> bool:
        """Whether KMS's newest answer lets the key be used. For what is no use of its own and cannot wait."""
        return self._waits.lease.confirmed()

    def waiting(self) -> PeerWait:
        """Around waiting for the client, in the task of its stream: raises the key's error once the lease is over."""
        return self._waits.begin(self._renew)

    def _rest_on(self, request_id: str) -> None:
        self._uses.rested(self._arn, self._use, request_id)


class KeyInUse:
    """The key that what a stream gives to its client stands under, once there is one. All are of one tenant."""

    def __init__(self) -> None:
        self.held: HeldKey | None = None

    def waiting(self) -> AbstractContextManager[None]:
        """As HeldKey.waiting."""
        return nullcontext() if self.held is None else self.held.waiting()
