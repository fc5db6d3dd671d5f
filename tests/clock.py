"""Time that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A ports.Clock whose two clocks move together, and only by ``advance``."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._boottime = 1_000.0
        self._now = now

    def advance(self, seconds: float) -> None:
        self._boottime += seconds
        self._now += timedelta(seconds=seconds)

    def boottime(self) -> float:
        return self._boottime

    def now(self) -> datetime:
        return self._now
