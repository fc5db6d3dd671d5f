"""The machine's own time."""

import time
from datetime import UTC, datetime


class SystemClock:
    """CLOCK_BOOTTIME, so that a suspended machine does not stretch a lease, and the time of day in UTC."""

    def boottime(self) -> float:
        """See ports.Clock."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        """See ports.Clock."""
        return datetime.now(UTC)
