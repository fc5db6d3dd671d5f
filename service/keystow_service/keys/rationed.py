"""A KeyService in front of another of one region: what exceeds this process's share of the KMS quota waits its turn.

https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html: calls for other accounts' keys count
against the caller's quota, so that one tenant's rush could stop all others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from keystow_service.acting import Urgency, acting
from keystow_service.errors import KmsThrottledError
from keystow_service.keys import haste
from keystow_service.keys.encryption_context import tenant_concerned
from keystow_service.keys.kms_turns import KmsTurns
from keystow_service.keys.sending import on_sending
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import EncryptionContext, KeyService

_T = TypeVar("_T")


class RationedKeyService:
    """See the module."""

    def __init__(self, service: KeyService, turns: KmsTurns) -> None:
        self._service = service
        self._turns = turns

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._in_turn(arn, context, Urgency.BACKUP, lambda: self._service.generate_data_key(arn, context))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._in_turn(arn, context, Urgency.RESTORE, lambda: self._service.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._in_turn(arn, {}, Urgency.BACKUP, lambda: self._service.describe(arn))

    async def _in_turn(
        self, arn: KeyArn, context: EncryptionContext, urgency: Urgency, send: Callable[[], Awaitable[_T]]
    ) -> _T:
        tenant = tenant_concerned(context) or arn.text
        at_most = acting.get().urgency
        if at_most is not Urgency.PROBE or await self._is_wanted_before_its_turn(arn, tenant):
            await self._turns.take(arn, tenant, urgency if at_most is Urgency.PROBE else max(urgency, at_most))
        on_sending.get()()
        try:
            return await send()
        except KmsThrottledError:
            self._turns.throttled()
            raise

    async def _is_wanted_before_its_turn(self, arn: KeyArn, tenant: str) -> bool:
        """Wait for the turn of a probe. True: somebody else has come to wait for it, too, and has to go before."""
        wanted = haste.wanted.get() or asyncio.Event()
        turn = asyncio.create_task(self._turns.take(arn, tenant, Urgency.PROBE))
        joined = asyncio.create_task(wanted.wait())
        try:
            await asyncio.wait((turn, joined), return_when=asyncio.FIRST_COMPLETED)
            if turn.done():
                turn.result()
            return not turn.done()
        finally:
            turn.cancel()
            joined.cancel()
            await asyncio.gather(turn, joined, return_exceptions=True)
