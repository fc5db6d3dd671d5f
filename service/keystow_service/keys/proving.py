"""Asking KMS on behalf of one lease, and holding the lease to what KMS answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from keystow_service.errors import KeyRefusal, KeystowError, KmsUnavailableError, WrappedKeyInvalidError
from keystow_service.keys.lease import Lease, LeasePolicy
from keystow_service.keys.sending import on_refusal, on_sending
from keystow_service.model import DataKey, KeyArn, TenantId
from keystow_service.ports import Clock, EncryptionContext, KeyService

log = structlog.get_logger(__name__)

_WARNING_INTERVAL = 60.0  # seconds between two of the same warning about one tenant


class KeyObserver(Protocol):
    """Is told what each use of a tenant's key showed."""

    def succeeded(self, tenant_id: TenantId, request_id: str) -> None:
        """KMS did as asked, by its request of that id."""
        ...

    def failed(self, tenant_id: TenantId, error: KeystowError) -> None:
        """KMS refused, or did not answer."""
        ...


@dataclass(frozen=True, slots=True)
class TenantKey:
    """A tenant's KMS key, and how to ask for its use."""

    tenant_id: TenantId
    arn: KeyArn
    service: KeyService
    context: EncryptionContext


class Proving:
    """See the module."""

    def __init__(
        self,
        key: TenantKey,
        lease: Lease,
        policy: LeasePolicy,
        observer: KeyObserver,
        refused: Callable[[KeyRefusal], None],
    ) -> None:
        """``refused`` closes the lease, and all else that a refusal is about."""
        self._key = key
        self._lease = lease
        self._policy = policy
        self._observer = observer
        self._refused = refused

    async def __call__(
        self, send: Callable[[], Awaitable[DataKey]], let_go: Callable[[], None] = lambda: None
    ) -> DataKey:
        """What KMS answers to ``send``, once that proves something. Raises what it raises, and KmsUnavailableError.

        ``let_go`` is called when KMS refuses, maybe long before that is raised: whoever comes then asks anew.
        """

        def refused(error: KeyRefusal) -> None:
            let_go()
            self._refused(error)

        while True:
            request = _Request(self._lease, refused)
            try:
                answer = await request.made(send)
            except KeyRefusal as error:
                request.refused(error)
                self._observer.failed(self._key.tenant_id, error)
                raise
            except WrappedKeyInvalidError:
                raise  # is about one object's data key, and says nothing of the KMS key
            except Exception as error:
                named = error if isinstance(error, KeystowError) else None
                self._lease.postpone(named)
                if named is not None:
                    self._observer.failed(self._key.tenant_id, named)
                raise
            if self._lease.prove(request.sending, answer.request_id):
                self._observer.succeeded(self._key.tenant_id, answer.request_id)
                if not self._lease.counts():
                    late = self._too_late()
                    self._lease.postpone(late)
                    raise late
                return answer
            # A refusal overtook this answer, which was given before it: it proves nothing. Ask again.

    def _too_late(self) -> KmsUnavailableError:
        return KmsUnavailableError(
            f"KMS took longer to answer than the {self._policy.revocation_bound:g} s for which an answer counts. Try "
            f"again; if this lasts, the service's operator must raise lease_bound ({self._policy.bound:g} s).",
            retry_after=1.0,
            key_arn=self._key.arn.text,
        )


class _Request:
    """One request, that may wait and be sent several times: its last sending is what an answer belongs to."""

    def __init__(self, lease: Lease, refused: Callable[[KeyRefusal], None]) -> None:
        self._lease = lease
        self._close = refused
        self._closed = False
        self.sending = lease.sending()

    async def made(self, send: Callable[[], Awaitable[DataKey]]) -> DataKey:
        sending, refusal = on_sending.set(self._sent), on_refusal.set(self.refused)
        try:
            return await send()
        finally:
            on_refusal.reset(refusal)
            on_sending.reset(sending)

    def refused(self, error: KeyRefusal) -> None:
        """Once: since the refusal came, others may have proven the key anew."""
        if not self._closed:
            self._closed = True
            self._close(error)

    def _sent(self) -> None:
        self.sending = self._lease.sending()


class FailureLog:
    """Tells the operator whose key KMS does not give, but not over and over."""

    def __init__(self, key: TenantKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._told = ("", 0.0)  # what, and when

    def finished(self, task: asyncio.Task[Any]) -> None:
        """A background renewal has nobody who awaits it; whoever needs the key next asks again and is told."""
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, WrappedKeyInvalidError):
            return
        reason, now = getattr(error, "reason", "INTERNAL"), self._clock.boottime()
        told, told_at = self._told
        if reason != told or now - told_at >= _WARNING_INTERVAL:
            self._told = (reason, now)
            log.warning("kms_request_failed", tenant_id=self._key.tenant_id, key_arn=self._key.arn.text, reason=reason)
