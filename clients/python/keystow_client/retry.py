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
    upload do not use it up; no pause begins that would end after it. Pauses start at ``initial_delay`` seconds, double
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


DEFAULT_POLICY = RetryPolicy()
NO_RETRIES = RetryPolicy(max_attempts=1)

# For calls that mean the same however often they are sent.
SAME_CALL = frozenset({Recovery.RETRY})
# For calls that can also be started anew, with nothing left over from the first attempt.
FROM_THE_START = frozenset({Recovery.RETRY, Recovery.RESUME, Recovery.RESTART})


async def retrying(
    attempt: Callable[[], Awaitable[_T]], policy: RetryPolicy, helps: Callable[[KeystowError], bool]
) -> _T:
    """Call ``attempt`` until it succeeds, ``helps`` says that repeating would not, or the policy's bounds are met."""
    failures = 0
    give_up_at = 0.0
    while True:
        try:
            return await attempt()
        except KeystowError as error:
            failures += 1
            error.attempts = failures
            now = time.monotonic()
            if failures == 1:
                give_up_at = now + policy.total_seconds
            delay = policy.delay(failures, error.retry_after)
            if failures >= policy.max_attempts or now + delay > give_up_at or not helps(error):
                raise
            _log.warning("%s; trying again in %.1f s", error, delay)
        await asyncio.sleep(delay)
