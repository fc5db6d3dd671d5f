"""A plaintext data key in use by one stream."""

from collections.abc import Awaitable, Callable

from keystow_service.keys.lease import Lease
from keystow_service.model import DataKey


class HeldKey:
    """Call ``hold`` before every use: each segment that is sealed or opened, and the commit."""

    __slots__ = ("_hold", "_lease", "data_key")

    def __init__(self, key: DataKey, lease: Lease, hold: Callable[[], Awaitable[object]]) -> None:
        self.data_key = key
        self._lease = lease
        self._hold = hold

    async def hold(self) -> None:
        """Return at once under a live lease, else after KMS has answered. Raises what KMS answers."""
        await self._hold()

    def confirmed(self) -> bool:
        """Whether KMS's newest answer lets the key be used. For what is no use of its own and cannot wait."""
        return self._lease.confirmed()
