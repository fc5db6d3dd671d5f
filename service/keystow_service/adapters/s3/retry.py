"""Which S3 calls are sent again, and when: exponential backoff with full jitter, bounded in number and in time.

Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from keystow_service.adapters.s3.faults import RAISED, S3Fault, Verdict, read_fault

T = TypeVar("T")

# Of calls that may be carried out twice without harm.
IDEMPOTENT = frozenset({Verdict.UNDONE, Verdict.CONFLICT, Verdict.UNKNOWN})
# Of a conditional PutObject: only after an answer that says that it was not carried out.
CONDITIONAL = frozenset({Verdict.UNDONE, Verdict.CONFLICT})
# Of CompleteMultipartUpload: a conflict ends the upload, says its documentation.
COMPLETE = frozenset({Verdict.UNDONE})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds, save ``attempts``."""

    attempts: int = 6
    first_delay: float = 0.1
    longest_delay: float = 5.0
    total: float = 60.0  # no attempt begins later than this after the first
    attempt: float = 300.0  # aiohttp bounds the reading of an answer, but not the sending of a body to a stalled server

    async def call(self, send: Callable[[], Awaitable[T]], repeat: Collection[Verdict]) -> T:
        """What ``send`` answers, sent again after failures with a verdict in ``repeat``. Raises S3Fault."""
        give_up = time.monotonic() + self.total
        in_doubt = False
        for attempt in count(1):
            try:
                async with asyncio.timeout(self.attempt):
                    return await send()
            except RAISED as raised:
                fault = read_fault(raised)
                fault.in_doubt = in_doubt
            in_doubt = in_doubt or fault.verdict is Verdict.UNKNOWN
            delay = self.delay(attempt, fault)
            if fault.verdict not in repeat or attempt >= self.attempts or time.monotonic() + delay > give_up:
                raise fault
            await asyncio.sleep(delay)
        raise AssertionError  # count never ends

    def delay(self, attempt: int, fault: S3Fault | None = None) -> float:
        """How long to wait after the given attempt; never less than S3 asks for."""
        ceiling = min(self.longest_delay, self.first_delay * 2 ** (attempt - 1))
        asked = fault.error.retry_after if fault is not None else None
        return max(random.uniform(0, ceiling), asked or 0.0)  # noqa: S311 - spreads load, guards nothing
