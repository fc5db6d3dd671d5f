"""A token bucket: so many requests a second, and no more than a second's worth at once. Pure; times are in seconds."""

_SLOWER, _FASTER = 0.7, 0.05  # of the rate, after a refusal; of the full rate, for each second without one
_SLOWEST = 0.01  # of the full rate


class TokenBucket:
    """Its rate gives way when the other side says that it is too fast, and comes back bit by bit.

    As TCP does: https://www.rfc-editor.org/rfc/rfc5681 (multiplicative decrease, additive increase).
    """

    __slots__ = ("_full_rate", "_rate", "_slowed_at", "_time", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        """``rate`` is in tokens a second. Full at first."""
        self._full_rate = self._rate = rate
        self._tokens = max(rate, 1.0)
        self._time = now
        self._slowed_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 if there is one."""
        self._advance(now)
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def take(self) -> None:
        """One token, which there is."""
        self._tokens -= 1.0

    def idle(self, now: float) -> bool:
        """Whether it is as it was made, so that nothing is lost with it."""
        self._advance(now)
        return self._tokens >= max(self._full_rate, 1.0) and self._rate >= self._full_rate

    def slow_down(self, now: float) -> None:
        """A request was refused for coming too fast. Of those refused within a second one counts."""
        self._advance(now)
        if now - self._slowed_at >= 1.0:
            self._slowed_at = now
            self._rate = max(self._rate * _SLOWER, self._full_rate * _SLOWEST)
            self._tokens = min(self._tokens, 1.0)

    def _advance(self, now: float) -> None:
        passed = max(0.0, now - self._time)
        self._time = max(now, self._time)
        self._rate = min(self._full_rate, self._rate + passed * _FASTER * self._full_rate)
        self._tokens = min(max(self._rate, 1.0), self._tokens + passed * self._rate)
