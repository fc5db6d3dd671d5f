"""A KeyService in front of another, for one call: it is told before its deadline what its requests have met.

Only for requests that are its own: those that several calls wait for must not end with the first (shared_request.py).
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from keystow_service.keys.trouble import Trouble, time_to_tell, trouble
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import EncryptionContext, KeyService

_T = TypeVar("_T")


class PunctualKeyService:
    """See the module. Made when the call begins."""

    def __init__(self, service: KeyService) -> None:
        self._service = service
        self._time_to_tell = time_to_tell()

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._in_time(lambda: self._service.generate_data_key(arn, context))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._in_time(lambda: self._service.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._in_time(lambda: self._service.describe(arn))

    async def _in_time(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        met = Trouble()
        before = trouble.set(met)
        try:
            async with met.told_at(self._time_to_tell):
                return await ask()
        finally:
            trouble.reset(before)
