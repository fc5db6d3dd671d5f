"""A KeyService in front of another of one region: what exceeds this process's share of the KMS quota waits its turn.

https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html: calls for other accounts' keys count
against the caller's quota, so that one tenant's rush could stop all others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from keystow_service.acting import PROBE, acting
from keystow_service.errors import KmsThrottledError
from keystow_service.keys.kms_quota import KmsQuota, QuotaPolicy, Urgency, Waiting
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import TENANT_CONTEXT, EncryptionContext, KeyService

_T = TypeVar("_T")


class RationedKeyService:
    """See the module. Used by one event loop."""

    def __init__(self, service: KeyService, policy: QuotaPolicy, patience: float) -> None:
        """``patience`` in seconds: who waits longer is told that KMS is throttled."""
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._quota = KmsQuota(policy, self._loop.time())
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None

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
        await self._turn(arn, context.get(TENANT_CONTEXT, arn.text), urgency)
        try:
            return await send()
        except KmsThrottledError:
            self._quota.throttled(self._loop.time())
            raise

    async def _turn(self, arn: KeyArn, tenant: str, urgency: Urgency) -> None:
        """Raises KmsThrottledError."""
        if self._quota.full:
            raise self._throttled(arn)
        turn: asyncio.Future[None] = self._loop.create_future()
        # Whoever is just giving up may be offered its turn once more.
        waiting = Waiting(tenant, urgency, lambda: None if turn.done() else turn.set_result(None))
        self._quota.join(waiting)
        self._serve()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except TimeoutError:
            raise self._throttled(arn) from None
        finally:
            self._quota.leave(waiting)

    def _serve(self) -> None:
        wait = self._quota.serve(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wait is None else self._loop.call_later(wait, self._serve)

    def _throttled(self, arn: KeyArn) -> KmsThrottledError:
        return KmsThrottledError(
            "The service's share of AWS KMS's request quota is used up. Try again later; if this lasts, its operator "
            "must raise kms_requests_per_second, or the quota.",
            retry_after=self._patience,
            key_arn=arn.text,
        )
