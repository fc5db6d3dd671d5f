"""What the log could not take, counted until it can be told: nothing is lost silently."""

import threading
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """What is not in the log, and between when."""

    lost: int  # records of what was done
    refused: int  # calls, and requests to KMS, that were not begun because they could not be recorded
    since: datetime
    until: datetime


class Losses:
    """Counted by one thread, told by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gap: Gap | None = None
        self.lost = 0  # of all gaps

    def count(self, now: datetime, *, lost: int = 0, refused: int = 0) -> None:
        """Some more."""
        with self._lock:
            self.lost += lost
            gap = self._gap or Gap(0, 0, now, now)
            self._gap = Gap(gap.lost + lost, gap.refused + refused, gap.since, now)

    def peek(self) -> Gap | None:
        """What there is to tell."""
        return self._gap

    def take(self) -> Gap | None:
        """And forget it."""
        with self._lock:
            gap, self._gap = self._gap, None
            return gap
