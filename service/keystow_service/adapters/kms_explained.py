"""A refusal of AWS KMS, explained: which state of the key it is about, and until when it can be undone.

A key pending deletion answers with either of two exceptions, and neither says the date; so the key is described. That
is a request to KMS of its own: it goes through the KeyService as every other does. The lease does not wait for it. If
it fails, what KMS said stands, and of a deletion the date that was known before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from copy import copy
from datetime import datetime
from typing import TypeAlias, TypeVar

import structlog

from keystow_service.acting import concerning
from keystow_service.adapters import kms_errors
from keystow_service.errors import (
    KeyRefusal,
    KeystowError,
    KmsKeyDisabledError,
    KmsKeyPendingDeletionError,
    KmsKeyPendingImportError,
    KmsKeyStoreUnavailableError,
    KmsKeyTransitioningError,
)
from keystow_service.keys.encryption_context import tenant_concerned
from keystow_service.keys.sending import on_refusal
from keystow_service.keys.trouble import trouble
from keystow_service.model import DataKey, KeyArn, KeyDescription
from keystow_service.ports import EncryptionContext, KeyService

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_ABOUT_THE_STATE = (
    KmsKeyDisabledError,
    KmsKeyPendingDeletionError,
    KmsKeyPendingImportError,
    KmsKeyStoreUnavailableError,
    KmsKeyTransitioningError,
)

# The date that is remembered of a key's announced deletion. Raises KeystowError.
Announced: TypeAlias = Callable[[KeyArn, EncryptionContext], Awaitable[datetime | None]]


class ExplainedKms:
    """A KeyService in front of another."""

    def __init__(self, kms: KeyService, announced: Announced, patience: float) -> None:
        """``patience`` in seconds: somebody waits to be told of the refusal."""
        self._kms = kms
        self._announced = announced
        self._patience = patience

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._explained(arn, context, self._kms.generate_data_key(arn, context))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        return await self._explained(arn, context, self._kms.unwrap(arn, wrapped, context))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        return await self._kms.describe(arn)

    async def _explained(self, arn: KeyArn, context: EncryptionContext, request: Awaitable[_T]) -> _T:
        try:
            return await request
        except _ABOUT_THE_STATE as error:
            refusal = error
        on_refusal.get()(refusal)
        trouble.get().last = copy(refusal)  # without its traceback, which holds what frames hold
        raise await self._explanation(arn, context, refusal)

    async def _explanation(self, arn: KeyArn, context: EncryptionContext, refusal: KeyRefusal) -> KeystowError:
        try:
            async with asyncio.timeout(self._patience):
                key = await self._described(arn, context)
        except (KeystowError, TimeoutError) as error:
            log.info("kms.key_not_described", key_arn=arn.text, kind=type(error).__name__)
            verdict = await self._remembered(arn, context, refusal)
        else:
            verdict = kms_errors.by_description(key)
        return refusal if verdict is None else verdict.error(arn, refusal.details.get("aws_request_id", ""))

    async def _described(self, arn: KeyArn, context: EncryptionContext) -> KeyDescription:
        tenant = tenant_concerned(context)
        with nullcontext() if tenant is None else concerning(tenant):
            return await self._kms.describe(arn)

    async def _remembered(
        self, arn: KeyArn, context: EncryptionContext, refusal: KeyRefusal
    ) -> kms_errors.Verdict | None:
        """None where KMS did not say that the key is to be deleted: that may have been cancelled since."""
        if not isinstance(refusal, KmsKeyPendingDeletionError):
            return None
        try:
            async with asyncio.timeout(self._patience):
                return kms_errors.pending_deletion(await self._announced(arn, context))
        except (KeystowError, TimeoutError) as error:
            log.info("kms.deletion_not_looked_up", key_arn=arn.text, kind=type(error).__name__)
            return None
