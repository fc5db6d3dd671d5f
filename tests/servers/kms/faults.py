"""What goes wrong on request, before or after the KMS does its work."""

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

from keystow_service.ports import Clock
from servers.gate import Gate
from servers.kms.refusal import Refusal


class Drop(Enum):
    """Where a connection breaks."""

    REQUEST = auto()  # before the request is read by KMS: nothing was done
    ANSWER = auto()  # after KMS did as asked, and logged it


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets: an error answer, just this ``body``, or a broken connection."""

    code: str = ""
    message: str = "foreign text"
    status: int = 400
    body: bytes | None = None
    drop: Drop | None = None

    def raise_refusal(self) -> None:
        """If that is what it is."""
        if self.code:
            raise Refusal(self.code, self.message, self.status)


class Faults:
    """Those to come. ``operation`` None is any."""

    def __init__(self, clock: Clock) -> None:
        self._next: deque[tuple[str | None, Fault]] = deque()
        self._always: dict[str | None, Fault] = {}
        self._gates: dict[str | None, Gate] = {}
        self._rate: _Rate | None = None
        self._clock = clock

    def fail_next(self, fault: Fault, times: int = 1, *, operation: str | None = None) -> None:
        """The next requests meet this fault, after those already asked for."""
        self._next += [(operation, fault)] * times

    def fail_always(self, fault: Fault, *operations: str) -> None:
        """Every request does, or every one of these operations, until ``end``."""
        self._always |= dict.fromkeys(operations or (None,), fault)

    def end(self) -> None:
        """No more faults, limits and gates: what waits goes on."""
        self._next.clear()
        self._always.clear()
        self._rate = None
        for gate in self._gates.values():
            gate.open()
        self._gates.clear()

    def limit(self, per_second: float, burst: int = 1) -> None:
        """More requests than these, by the clock, are throttled."""
        self._rate = _Rate(per_second, burst, self._clock)

    def hold(self, which: str | None = None) -> Gate:
        """Requests of an operation, or that name a key by its ARN, wait at this gate from now on, or else all.

        They wait before anything else is done about them.
        """
        return self._gates.setdefault(which, Gate())

    async def wait(self, operation: str, key_id: str) -> None:
        """At the gates."""
        for each in (operation, key_id, None):
            if each in self._gates:
                await self._gates[each].wait()

    def take(self, operation: str) -> Fault | None:
        """The one that this request meets."""
        for index, (only, fault) in enumerate(self._next):
            if only in (None, operation):
                del self._next[index]
                return fault
        return self._always.get(operation) or self._always.get(None)

    def throttle(self) -> None:
        """Raises Refusal."""
        if self._rate is not None and not self._rate.admits():
            raise Refusal(
                "ThrottlingException",
                "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
            )


class _Rate:
    """A token bucket."""

    def __init__(self, per_second: float, burst: int, clock: Clock) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock.boottime()

    def admits(self) -> bool:
        now = self._clock.boottime()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if math.floor(self._tokens) < 1:
            return False
        self._tokens -= 1
        return True
