"""A KeyService whose every request is audited: the one in front of AWS KMS or the local keyring, behind all retries.

The promise: one request, one record, with the id under which CloudTrail has it, also if the request failed or was
cancelled. Where what cannot be recorded must not be done, no request is made without room for its record, and no data
key leaves before the record is on the disk.
"""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from keystow_service.acting import acting
from keystow_service.audit import CANCELLED, Action, KmsAttempt
from keystow_service.errors import InternalError, KeystowError
from keystow_service.keys.encryption_context import tenant_concerned
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import AuditLog, EncryptionContext, KeyService

_Answer = TypeVar("_Answer", DataKey, KeyDescription)


class AuditedKeyService:
    """See the module. Raises AuditUnavailableError besides what the other one raises."""

    def __init__(self, service: KeyService, audit: AuditLog) -> None:
        self._service = service
        self._audit = audit

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._attempt(
            "GenerateDataKey", arn, context, lambda: self._service.generate_data_key(arn, context)
        )

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._attempt("Decrypt", arn, context, lambda: self._service.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._attempt("DescribeKey", arn, {}, lambda: self._service.describe(arn))

    async def _attempt(
        self, operation: str, arn: KeyArn, context: EncryptionContext, request: Callable[[], Awaitable[_Answer]]
    ) -> _Answer:
        self._audit.admit()
        started = time.monotonic()
        request_id, reason = "", CANCELLED
        try:
            answer = await request()
            request_id, reason = answer.request_id, ""
        except KeystowError as error:
            request_id, reason = error.details.get("aws_request_id", ""), error.reason
            raise
        except Exception:
            reason = InternalError.reason
            raise
        finally:
            seconds = time.monotonic() - started
            self._audit.record(KmsAttempt(_action(context), operation, arn, dict(context), request_id, reason, seconds))
        await self._audit.durable()
        return answer


def _action(context: EncryptionContext) -> Action:
    who = acting.get()
    return Action(who.request_id, who.caller.principal, who.operation, tenant_concerned(context))
