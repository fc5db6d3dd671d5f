"""A plaintext data key in use by one stream, on behalf of whoever took it."""

from collections.abc import Awaitable, Callable

from keystow_service.acting import acting
from keystow_service.audit import KeyUse
from keystow_service.keys.lease import Lease
from keystow_service.model import DataKey, KeyArn


class HeldKey:
    """Call ``hold`` before every use: each segment that is sealed or opened, and the commit."""

    __slots__ = ("_arn", "_hold", "_lease", "_proof", "_use", "_uses", "data_key")

    def __init__(
        self,
        key: DataKey,
        lease: Lease,
        hold: Callable[[], Awaitable[object]],
        arn: KeyArn,
        use: KeyUse,
        *,
        cached: bool,
    ) -> None:
        """``cached``: the data key was in memory; else KMS was waited for."""
        self.data_key = key
        self._lease = lease
        self._hold = hold
        self._arn = arn
        self._use = use
        self._uses = acting.get().key_uses
        self._uses.taken(arn, use, cached=cached)
        self._rest_on(key.request_id)
        self._proof = lease.proof
        self._rest_on(self._proof)

    async def hold(self) -> None:
        """Return at once under a live lease, else after KMS has answered. Raises what KMS answers."""
        await self._hold()
        if self._lease.proof != self._proof:
            self._proof = self._lease.proof
            self._rest_on(self._proof)

    def confirmed(self) -> bool:
        """Whether KMS's newest answer lets the key be used. For what is no use of its own and cannot wait."""
        return self._lease.confirmed()

    def _rest_on(self, request_id: str) -> None:
        self._uses.rested(self._arn, self._use, request_id)
