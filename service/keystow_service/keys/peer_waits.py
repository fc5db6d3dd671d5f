"""Streams that wait for their clients under a lease, and end with it.

Whoever waits makes no use of a data key, and would not learn that it may not be used any more: what was handed to the
transport would lie there for a client that does not read, and the data key of one that does not send would stay in
memory. So while anybody waits, the lease is looked after as if it were used; and all who wait are given the key's error
once KMS refuses, or its last answer has ceased to count ``grace`` seconds ago.
"""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from copy import copy

from keystow_service.errors import KeyRefusal, KeystowError, KmsUnavailableError
from keystow_service.keys.lease import Lease, LeasePolicy
from keystow_service.ports import Clock

_LOOKS = 4  # in the time of the grace


class PeerWaits:
    """All who wait under one lease."""

    def __init__(self, lease: Lease, policy: LeasePolicy, clock: Clock) -> None:
        self.lease = lease
        self._bound = policy.revocation_bound
        self._pause = policy.grace / _LOOKS
        self._grace = policy.grace - self._pause  # looked at a moment later, a wait would have had too much of it
        self._clock = clock
        self._waiting: set[PeerWait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, renew: Callable[[], object]) -> "PeerWait":
        """A wait that is over at the end of its ``with`` block. ``renew`` asks KMS in the background."""
        return PeerWait(self, renew, self._clock.boottime())

    def refused(self, error: KeyRefusal) -> None:
        """Close the lease: KMS refused just now."""
        self.lease.close()
        self._end(self._waiting, error)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, wait: "PeerWait") -> None:
        """For PeerWait alone."""
        self._waiting.add(wait)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def remove(self, wait: "PeerWait") -> None:
        """For PeerWait alone."""
        self._waiting.discard(wait)

    def _look(self) -> None:
        self._timer = None
        if self.lease.overdue() >= self._grace:
            begun = self._clock.boottime() - self._grace
            self._end({wait for wait in self._waiting if wait.begun <= begun}, self._lost())
        if self._waiting:
            if self.lease.due():
                next(iter(self._waiting)).renew_on_its_behalf()
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _lost(self) -> KeystowError:
        return self.lease.failure or KmsUnavailableError(
            f"AWS KMS has not confirmed the key again in the {self._bound:g} s for which its answer counts. Try again.",
            retry_after=1.0,
        )

    def _end(self, waits: "set[PeerWait]", error: KeystowError) -> None:
        for wait in list(waits):
            self._waiting.discard(wait)
            wait.end(copy(error))


class PeerWait:
    """Around waiting for the client of the current task's stream. Raises the key's error in its place."""

    __slots__ = ("_cancelling", "_context", "_error", "_renew", "_task", "_waits", "begun")

    def __init__(self, waits: PeerWaits, renew: Callable[[], object], begun: float) -> None:
        self._waits = waits
        self._error: KeystowError | None = None
        self._renew = renew
        self.begun = begun

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only tasks wait")
        self._task, self._cancelling, self._context = task, task.cancelling(), copy_context()
        self._waits.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waits.remove(self)
        error, self._error = self._error, None
        # As asyncio.timeout does: a cancellation that came from elsewhere as well goes before.
        if error is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            try:
                raise error from None
            finally:
                del error  # whose traceback holds this frame, and those of the stream

    def renew_on_its_behalf(self) -> None:
        """For PeerWaits alone, whose timer runs on behalf of whoever was the first to wait."""
        self._context.run(self._renew)

    def end(self, error: KeystowError) -> None:
        """For PeerWaits alone."""
        self._error = error
        self._task.cancel()
