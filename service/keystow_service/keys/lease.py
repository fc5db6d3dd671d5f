"""A lease: proof that KMS let a key be used recently.

It counts from the moment the request to KMS was sent. Until ``refresh`` seconds it is fresh; then it is to be renewed;
after ``bound`` seconds it proves nothing. A refusal ends it at once, and only the answer to a request that was sent
after the refusal had come opens it again. With a bound of 0 no proof lasts: every use asks KMS, and is served by the
answer to a request that was sent after the use began, if that does not take too long.
"""

from copy import copy
from dataclasses import dataclass

from keystow_service.errors import KeystowError
from keystow_service.ports import Clock


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How long one answer of KMS counts. All times in seconds; ``refresh`` < ``bound``, or both are 0."""

    refresh: float = 30.0
    bound: float = 60.0
    # While renewals fail for reasons that are not a refusal, KMS is asked no more often than this.
    retry_interval: float = 1.0
    # How long a stream that waits for its client outlives its lease.
    grace: float = 1.0
    data_key_max_objects: int = 100_000
    opened_keys_max: int = 1_000  # per tenant
    # With a bound of 0: what an answer may take, for the key may have been disabled right after KMS gave it.
    slowest_answer: float = 2.0

    @property
    def revocation_bound(self) -> float:
        """For how long data keys are used after KMS may last have let them be: what customers are told."""
        return self.bound or self.slowest_answer


@dataclass(frozen=True, slots=True)
class Sending:
    """That a request was sent: as which one of its lease, and when (seconds of CLOCK_BOOTTIME)."""

    number: int
    time: float


class Lease:
    """The proof for one tenant and one operation. See the module."""

    __slots__ = ("_clock", "_policy", "_proven", "_proven_at", "_refused", "_retry_at", "failure", "proof", "sent")

    def __init__(self, clock: Clock, policy: LeasePolicy) -> None:
        self._clock = clock
        self._policy = policy
        self.sent = 0  # requests so far
        self._proven = 0  # the newest of them that KMS did
        self.proof = ""  # its request id, as in DataKey
        self._proven_at: float | None = None  # when that was sent; None once it proves nothing
        self._refused = 0  # the newest that had been sent when KMS last refused
        self._retry_at = float("-inf")
        self.failure: KeystowError | None = None  # of the last request, if that was no refusal

    def sending(self) -> Sending:
        """A request is sent now."""
        self.sent += 1
        return Sending(self.sent, self._clock.boottime())

    def prove(self, sending: Sending, request_id: str) -> bool:
        """KMS did as that request asked, under this id. False if it has refused one since: then this proves nothing."""
        if sending.number <= self._refused:
            return False
        if self._proven_at is None or sending.number > self._proven:
            self._proven, self._proven_at, self.proof = sending.number, sending.time, request_id
            self.failure = None
        return True

    def close(self) -> None:
        """KMS refused just now."""
        self._refused = self.sent
        self._proven_at = None

    def postpone(self, failure: KeystowError | None) -> None:
        """A request failed without a refusal: the lease runs to its bound."""
        self.failure = copy(failure)  # without its traceback, which holds what frames hold
        self._retry_at = self._clock.boottime() + self._policy.retry_interval

    def live(self) -> bool:
        """Whether it lets a key be used now, without asking."""
        return self.remaining() > 0

    def serves(self, begun: int) -> bool:
        """Whether it lets a key be used that began to be used when ``begun`` requests had been sent."""
        return self.counts() and (self._policy.bound > 0 or self._proven > begun)

    def counts(self) -> bool:
        """Whether KMS's newest answer was good and is young enough for a use that waited for it."""
        return self.overdue() < 0

    def overdue(self) -> float:
        """Seconds since KMS's newest answer ceased to count; below 0 while it does."""
        return self._age() - self._policy.revocation_bound

    def confirmed(self) -> bool:
        """Whether KMS's newest answer was good and counts yet; with a bound of 0, until a refusal comes."""
        return self.live() or (self._policy.bound == 0 and self._proven_at is not None)

    def remaining(self) -> float:
        """Seconds until the bound; 0 or less when it is over."""
        return self._policy.bound - self._age()

    def due(self) -> bool:
        """Whether KMS should be asked again."""
        return self._age() >= self._policy.refresh and self._clock.boottime() >= self._retry_at

    def _age(self) -> float:
        return float("inf") if self._proven_at is None else self._clock.boottime() - self._proven_at
