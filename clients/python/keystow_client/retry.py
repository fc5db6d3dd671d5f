"""When a failed call is tried again: by what the failure says would help, with growing, jittered pauses, and bounded.

Nothing here decides whether repeating is safe; callers say so by the recoveries that they can act on.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from keystow_client.errors import KeystowError, Recovery

_log = logging.getLogger("keystow_client")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How persistently a call is repeated.

    ``max_attempts`` counts the first one. ``total_seconds`` runs from the first failure, so that hours of a good
    upload do not use it up; no pause begins that would end after it. Both begin anew once a transfer that is continued
    has come further than before. Pauses start at ``initial_delay`` seconds, double
    up to ``max_delay``, and are shortened at random by up to half; a delay that the server asks for is kept in full.
    """

    max_attempts: int = 10
    total_seconds: float = 120.0
    initial_delay: float = 0.2
    max_delay: float = 10.0

    def delay(self, failures: int, retry_after: float | None) -> float:
        """Seconds to pause after so many failures in a row."""
        backoff = min(self.max_delay, self.initial_delay * 2.0 ** min(failures - 1, 60))
        jittered = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        return jittered if retry_after is None else retry_after + jittered


@dataclass(frozen=True, slots=True)
class Patience:
    """A client's: its policy, and what finds out why a failure is one that no repetition helps against."""

    policy: RetryPolicy
    diagnose: Callable[[KeystowError], Awaitable[KeystowError | None]]


DEFAULT_POLICY = RetryPolicy()
NO_RETRIES = RetryPolicy(max_attempts=1)

# For calls that mean the same however often they are sent.
SAME_CALL = frozenset({Recovery.RETRY})
# For transfers that go on where they broke off; loss of transport among it.
GOING_ON = frozenset({Recovery.RETRY, Recovery.RESUME})
# For calls that can also be started anew, with nothing left over from the first attempt.
FROM_THE_START = frozenset({Recovery.RETRY, Recovery.RESUME, Recovery.RESTART})


class Retries:
    """Counts one call's failures, pauses after each, and knows when to give up.

    What has come further than ever before has not failed in vain: the count and the time begin anew.
    """

    def __init__(self, patience: Patience) -> None:
        """Nothing has failed yet."""
        self._policy = patience.policy
        self._diagnose = patience.diagnose
        self._attempts = 0
        self._failures = 0
        self._give_up_at = 0.0
        self._furthest = 0
        self._last: KeystowError | None = None

    async def pause(self, error: KeystowError, *, helps: bool, position: int = 0) -> None:
        """Wait until the next attempt. Raises the failure, or a diagnosis of it, if there is to be none.

        ``helps`` says whether another attempt could; ``position`` how far, in bytes, all attempts together have come.
        A failure that one caller cannot help and hands to the next counts once.
        """
        now = time.monotonic()
        if error is not self._last:
            self._last = error
            self._attempts += 1
            error.attempts = self._attempts
            if position > self._furthest:
                self._furthest, self._failures = position, 0
            self._failures += 1
            if self._failures == 1:
                self._give_up_at = now + self._policy.total_seconds
        if (diagnosis := await self._diagnose(error)) is not None:
            diagnosis.attempts = error.attempts
            raise diagnosis from None
        delay = self._policy.delay(self._failures, error.retry_after)
        if not helps or self._failures >= self._policy.max_attempts or now + delay > self._give_up_at:
            raise error
        _log.warning("%s; trying again in %.1f s", error, delay)
        await asyncio.sleep(delay)


async def retrying(
    attempt: Callable[[], Awaitable[_T]], patience: Patience, helps: Callable[[KeystowError], bool]
) -> _T:
    """Call ``attempt`` until it succeeds, ``helps`` says that repeating would not, or patience ends."""
    retries = Retries(patience)
    while True:
        try:
            return await attempt()
        except KeystowError as error:
            await retries.pause(error, helps=helps(error))
