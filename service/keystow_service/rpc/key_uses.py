"""Which keys one RPC has used, and on which answers of KMS that rested: what ties each use to CloudTrail.

The promise: nothing is left out, and memory is bounded. What is more than one record takes is told in records of its
own while the call goes on; all of a call's records add up.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from keystow_service.audit import KeyUse, KeyUses
from keystow_service.model import KeyArn

_MAX_IDS = 100  # in one record


@dataclass(slots=True)
class _Tally:
    count: int = 0
    cached: int = 0
    kms_request_ids: dict[str, None] = field(default_factory=dict)  # a set in order


class KeyUseTally:
    """A KeyUseObserver."""

    def __init__(self, tell: Callable[[tuple[KeyUses, ...]], None]) -> None:
        """``tell`` is given what does not fit into one record."""
        self._tell = tell
        self._tallies: dict[tuple[KeyArn, KeyUse], _Tally] = {}
        self._ids = 0

    def taken(self, arn: KeyArn, use: KeyUse, *, cached: bool) -> None:
        """See acting.KeyUseObserver."""
        tally = self._tallies.setdefault((arn, use), _Tally())
        tally.count += 1
        tally.cached += cached

    def rested(self, arn: KeyArn, use: KeyUse, kms_request_id: str) -> None:
        """See acting.KeyUseObserver."""
        tally = self._tallies.setdefault((arn, use), _Tally())
        if kms_request_id and kms_request_id not in tally.kms_request_ids:
            if self._ids == _MAX_IDS:
                self._tell(self.take())
                tally = self._tallies.setdefault((arn, use), _Tally())
            tally.kms_request_ids[kms_request_id] = None
            self._ids += 1

    def take(self) -> tuple[KeyUses, ...]:
        """What there is since the last time."""
        tallies, self._tallies, self._ids = self._tallies, {}, 0
        return tuple(
            KeyUses(arn, use, tally.count, tally.cached, tuple(tally.kms_request_ids))
            for (arn, use), tally in tallies.items()
        )
