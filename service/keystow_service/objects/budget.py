"""One budget of buffer bytes for all streams of the process: a stream that would pass it waits, then is refused.

Keeps the promise that memory stays inside its configured limit, whatever clients do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from keystow_service.errors import OverloadedError, Violation


class BufferBudget:
    """Admits streams first come, first served."""

    def __init__(self, limit: int, admission_timeout: float) -> None:
        """``limit`` in bytes, ``admission_timeout`` in seconds."""
        self._limit = limit
        self._free = limit
        self._timeout = admission_timeout
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def in_use(self) -> int:
        """Bytes."""
        return self._limit - self._free

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator["Reservation"]:
        """Hold ``size`` bytes of the budget, or all of it if that is less. Raises OverloadedError.

        A stream reserves once, for the most that it can need then, and resizes: it never waits while it holds.
        """
        size = min(size, self._limit)
        await self._admit(size)
        reservation = Reservation(self, size)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    async def _admit(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        if sum(size for size, _ in self._waiting) > self._limit:  # what waits has messages in memory, too
            raise self._overloaded()
        turn = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(size)
            else:
                with suppress(ValueError):  # already passed over
                    self._waiting.remove(entry)
                self._admit_waiting()
            if isinstance(error, TimeoutError):
                raise self._overloaded() from None
            raise

    def require(self, size: int) -> None:
        """Raises OverloadedError where ``size`` bytes more would make it twice the limit that is in use."""
        if size > self._free + self._limit:
            raise self._overloaded()

    def give_back(self, size: int) -> None:
        """Free ``size`` bytes; a negative size takes them, past the limit if need be, and makes others wait."""
        self._free += size
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._free -= size
            turn.set_result(None)

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            "The server's buffer memory is in use by other streams. Try again later, or with fewer at once.",
            violations=[Violation("buffer_budget", f"{self._limit} bytes are in use")],
            retry_after=max(self._timeout, 1.0),
        )


class Reservation:
    """What one stream holds of the budget."""

    def __init__(self, budget: BufferBudget, size: int) -> None:
        self._budget = budget
        self._size = size

    def resize(self, size: int) -> None:
        """Hold ``size`` bytes from now on."""
        self._budget.give_back(self._size - size)
        self._size = size

    def grow(self, size: int) -> None:
        """The same, for a stream whose client decides how far it grows.

        Raises OverloadedError, and holds what it held, at twice the budget's limit.
        """
        if size > self._size:
            self._budget.require(size - self._size)
        self.resize(size)
