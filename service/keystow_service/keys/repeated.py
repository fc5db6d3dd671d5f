"""A KeyService in front of another: what fails in passing is asked for again.

Exponential backoff with full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).
A refusal is never repeated: it is an answer, and ends leases at once. Each attempt is a request of its own to what is
behind, which rations and audits it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from keystow_service.errors import KmsThrottledError, KmsUnavailableError
from keystow_service.keys.trouble import trouble
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import EncryptionContext, KeyService

_T = TypeVar("_T")

_PASSING = (KmsThrottledError, KmsUnavailableError)


@dataclass(frozen=True, slots=True)
class RepeatPolicy:
    """Seconds, save ``attempts``."""

    attempts: int = 3
    first_delay: float = 0.1
    longest_delay: float = 5.0
    total: float = 20.0  # no attempt begins later than this after the first


class RepeatedKeyService:
    """See the module."""

    def __init__(self, service: KeyService, policy: RepeatPolicy, random: Callable[[], float]) -> None:
        """``random`` gives numbers from 0 to 1."""
        self._service = service
        self._policy = policy
        self._random = random

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._repeated(lambda: self._service.generate_data_key(arn, context))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._repeated(lambda: self._service.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._repeated(lambda: self._service.describe(arn))

    async def _repeated(self, send: Callable[[], Awaitable[_T]]) -> _T:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._policy.total
        for attempt in count(1):
            try:
                return await send()
            except _PASSING as error:
                trouble.get().last = copy(error)  # without its traceback, which holds what frames hold
                ceiling = min(self._policy.longest_delay, self._policy.first_delay * 2 ** (attempt - 1))
                delay = ceiling * self._random()
                if attempt >= self._policy.attempts or loop.time() + delay > give_up:
                    raise
            await asyncio.sleep(delay)
        raise AssertionError  # count never ends
