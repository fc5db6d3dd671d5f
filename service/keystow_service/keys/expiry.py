"""What is cached under a lease leaves the memory when the lease is over, used or not."""

import asyncio
from collections.abc import Callable

from keystow_service.keys.lease import Lease


class Expiry:
    """One timer, set again while the lease is renewed."""

    def __init__(self, lease: Lease, drop: Callable[[], None]) -> None:
        """``drop`` forgets what is cached."""
        self._lease = lease
        self._drop = drop
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Something is cached from now on."""
        if self._timer is None:
            left = max(self._lease.remaining(), 0)
            self._timer = asyncio.get_running_loop().call_later(left, self._look)

    def close(self) -> None:
        """Drop it now, and watch no longer."""
        self._drop()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._lease.live():
            self.watch()
        else:
            self._drop()
