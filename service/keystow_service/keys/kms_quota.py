"""Whose request to KMS is sent next: one regional quota serves all tenants, and it must not serve one of them only.

A request needs a token of the region and one of its tenant. Those who wait are served by urgency; among the equally
urgent tenants take turns, so that the rush of one holds up nobody else. Pure; times are in seconds.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from keystow_service.acting import Urgency
from keystow_service.keys.token_bucket import TokenBucket

_MAX_TENANTS = 10_000  # whose buckets are remembered; full ones are forgotten first


@dataclass(frozen=True, slots=True)
class QuotaPolicy:
    """Requests a second, of this process."""

    region: float = 2_000.0
    tenant: float = 500.0
    max_waiting: int = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """One who waits for its turn."""

    tenant: str
    urgency: Urgency
    begin: Callable[[], None]  # called when its turn has come


class KmsQuota:
    """Of one region."""

    def __init__(self, policy: QuotaPolicy, now: float) -> None:
        self._policy = policy
        self._region = TokenBucket(policy.region, now)
        self._tenants: dict[str, TokenBucket] = {}
        # By urgency, and in the order in which it is the tenants' turn.
        self._lines: dict[Urgency, dict[str, deque[Waiting]]] = {urgency: {} for urgency in Urgency}
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether too many wait already."""
        return self._count >= self._policy.max_waiting

    def join(self, waiting: Waiting) -> None:
        """Wait behind the tenant's others of the same urgency."""
        self._lines[waiting.urgency].setdefault(waiting.tenant, deque()).append(waiting)
        self._count += 1

    def leave(self, waiting: Waiting) -> None:
        """Wait no longer, if it still does."""
        line = self._lines[waiting.urgency].get(waiting.tenant, ())
        if waiting in line:
            self._remove(waiting)

    def serve(self, now: float) -> float | None:
        """Begin all whose turn it is. Gives in how many seconds it is somebody's again; None if nobody waits."""
        soonest = float("inf")
        for lines in self._lines.values():
            turns = deque(lines)
            while turns:
                if (wait := self._region.wait(now)) > 0:
                    return min(soonest, wait)
                bucket = self._bucket(turns[0], now)
                if (wait := bucket.wait(now)) > 0:
                    soonest = min(soonest, wait)
                    turns.popleft()
                    continue
                self._region.take()
                bucket.take()
                tenant = turns.popleft()
                waiting = lines[tenant][0]
                self._remove(waiting)
                if tenant in lines:
                    lines[tenant] = lines.pop(tenant)  # behind the others
                    turns.append(tenant)
                waiting.begin()
        return None if soonest == float("inf") else soonest

    def throttled(self, now: float) -> None:
        """KMS has said that the region's requests come too fast."""
        self._region.slow_down(now)

    def _remove(self, waiting: Waiting) -> None:
        lines = self._lines[waiting.urgency]
        lines[waiting.tenant].remove(waiting)
        if not lines[waiting.tenant]:
            del lines[waiting.tenant]
        self._count -= 1

    def _bucket(self, tenant: str, now: float) -> TokenBucket:
        bucket = self._tenants.get(tenant)
        if bucket is None:
            if len(self._tenants) >= _MAX_TENANTS:
                self._tenants = {name: each for name, each in self._tenants.items() if not each.idle(now)}
            bucket = self._tenants[tenant] = TokenBucket(self._policy.tenant, now)
        return bucket
