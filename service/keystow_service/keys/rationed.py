"""A KeyService in front of another of one region: what exceeds this process's share of the KMS quota waits its turn.

https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html: calls for other accounts' keys count
against the caller's quota, so that one tenant's rush could stop all others.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from keystow_service.acting import PROBE, acting
from keystow_service.errors import KmsThrottledError
from keystow_service.keys.kms_quota import Urgency
from keystow_service.keys.kms_turns import KmsTurns
from keystow_service.keys.sending import on_sending
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import TENANT_CONTEXT, EncryptionContext, KeyService

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
        if acting.get().operation == PROBE:
            urgency = Urgency.PROBE
        await self._turns.take(arn, context.get(TENANT_CONTEXT, arn.text), urgency)
        on_sending.get()()
        try:
            return await send()
        except KmsThrottledError:
            self._turns.throttled()
            raise
