"""Propagation: what an administrator changes, the data plane sees later.

https://docs.aws.amazon.com/kms/latest/developerguide/accessing-kms.html#programming-eventual-consistency
"""

import math
from typing import Generic, TypeVar

from keystow_service.ports import Clock

_T = TypeVar("_T")


class Lag:
    """How much later, for all keys of a KMS. By default not at all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = 0.0  # of the clock
        self._caught_up = 0

    def hold(self) -> None:
        """From now on no change is seen before ``catch_up``."""
        self.seconds = math.inf

    def catch_up(self) -> None:
        """All changes so far are seen now, and those to come at once."""
        self.seconds = 0.0
        self._caught_up += 1

    def ticket(self) -> tuple[int, float]:
        """Of a change made now."""
        return self._caught_up, self._clock.boottime() + self.seconds

    def over(self, ticket: tuple[int, float]) -> bool:
        """Whether that change is seen."""
        caught_up, seen_at = ticket
        return caught_up < self._caught_up or seen_at <= self._clock.boottime()


class Lagging(Generic[_T]):
    """A value that is set in one place and seen, later, in another."""

    def __init__(self, value: _T, lag: Lag) -> None:
        self.newest = value
        self._seen = value
        self._coming: list[tuple[tuple[int, float], _T]] = []
        self._lag = lag

    def set(self, value: _T) -> None:
        """Change it."""
        self.newest = value
        self._coming.append((self._lag.ticket(), value))

    @property
    def seen(self) -> _T:
        """As the data plane has it."""
        while self._coming and self._lag.over(self._coming[0][0]):
            self._seen = self._coming.pop(0)[1]
        return self._seen
