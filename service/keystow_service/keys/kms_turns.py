"""Waiting for one's turn to send a request to KMS: the quota of a region, by the running loop's clock."""

import asyncio

from keystow_service.acting import Urgency
from keystow_service.errors import KmsThrottledError
from keystow_service.keys.kms_quota import KmsQuota, QuotaPolicy, Waiting
from keystow_service.model import KeyArn


class KmsTurns:
    """One instance for a region, whichever data centres are in it. Used by one event loop."""

    def __init__(self, policy: QuotaPolicy, patience: float) -> None:
        """``patience`` in seconds: who waits longer is told that KMS is throttled."""
        self._loop = asyncio.get_running_loop()
        self._quota = KmsQuota(policy, self._loop.time())
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, arn: KeyArn, tenant: str, urgency: Urgency) -> None:
        """Return once a request may be sent. Raises KmsThrottledError."""
        if self._quota.full:
            raise self._used_up(arn)
        turn: asyncio.Future[None] = self._loop.create_future()
        # Whoever is just giving up may be offered its turn once more.
        waiting = Waiting(tenant, urgency, lambda: None if turn.done() else turn.set_result(None))
        self._quota.join(waiting)
        self._serve()
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except TimeoutError:
            raise self._used_up(arn) from None
        finally:
            self._quota.leave(waiting)

    def throttled(self) -> None:
        """KMS has said that the region's requests come too fast."""
        self._quota.throttled(self._loop.time())

    def _serve(self) -> None:
        wait = self._quota.serve(self._loop.time())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if wait is None else self._loop.call_later(wait, self._serve)

    def _used_up(self, arn: KeyArn) -> KmsThrottledError:
        return KmsThrottledError(
            "The service's share of AWS KMS's request quota is used up. Try again later; if this lasts, its operator "
            "must raise kms_requests_per_second, or the quota.",
            retry_after=self._patience,
            key_arn=arn.text,
        )
