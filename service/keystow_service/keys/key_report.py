"""What was found about a customer's own key: named checks, each with a sentence for the customer's administrator.

The promise: the names never change, all of them are in every report, and a report without failures is of a usable key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from keystow_service.errors import (
    KeyRefusal,
    KeystowError,
    KmsAccessDeniedError,
    KmsKeyNotFoundError,
    WrappedKeyInvalidError,
)
from keystow_service.model import KeyState


class Outcome(Enum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"  # works, but the customer should know
    SKIPPED = "skipped"  # an earlier check failed


class Check(Enum):
    """Every check, in order, by the name that the API gives it."""

    SYNTAX = "arn.syntax"
    REGION = "arn.region"
    UNUSED = "arn.unused"
    DESCRIBE = "key.describe"
    GENERATE = "grant.generate"
    DECRYPT = "grant.decrypt"
    CONFINED = "policy.confined"


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """How one check ended: what was found, and what to do about it."""

    check: Check
    outcome: Outcome
    detail: str


@dataclass(slots=True)
class KeyReport:
    """All that was found of one key.

    ``state`` is what describing and using it showed, None if it came to neither. ``worth_waiting``: what failed may be
    of a key or a policy that AWS does not know everywhere yet. ``misplaced``: its ARN itself failed, by this error.
    """

    state: KeyState | None = None
    worth_waiting: bool = False
    misplaced: KeystowError | None = None
    _found: dict[Check, KeyCheck] = field(default_factory=dict)

    def copy(self) -> "KeyReport":
        """To go on with, more than once."""
        return replace(self, _found=dict(self._found))

    def add(self, check: Check, outcome: Outcome, detail: str) -> None:
        """How a check ended."""
        self._found[check] = KeyCheck(check, outcome, detail)

    def refused(self, check: Check, refusal: KeyRefusal | WrappedKeyInvalidError) -> None:
        """A check failed, because KMS or the keyring refused what it tried."""
        contradicts_description = self.passed(Check.DESCRIBE)
        self.worth_waiting = isinstance(refusal, KmsAccessDeniedError | KmsKeyNotFoundError) or contradicts_description
        hint = " What was changed just now takes up to five minutes to work." if self.worth_waiting else ""
        self.add(check, Outcome.FAILED, refusal.message + hint)
        if state := refusal.details.get("key_state"):
            self.state = KeyState(state)

    def passed(self, check: Check) -> bool:
        """Whether a check ended well, a warning included."""
        found = self._found.get(check)
        return found is not None and found.outcome in (Outcome.PASSED, Outcome.WARNING)

    @property
    def checks(self) -> Sequence[KeyCheck]:
        """All of them, those that were not tried as skipped."""
        skipped = "Not tried, because an earlier check failed."
        return [self._found.get(check) or KeyCheck(check, Outcome.SKIPPED, skipped) for check in Check]

    @property
    def failures(self) -> Sequence[KeyCheck]:
        """Those that failed. Without any, the key is usable."""
        return [each for each in self.checks if each.outcome is Outcome.FAILED]
