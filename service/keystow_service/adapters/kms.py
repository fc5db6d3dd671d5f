"""AWS KMS as a KeyService.

The promise: every request names the key by its full ARN and carries the encryption context, so that the customer's own
CloudTrail shows it; an answer for another key is refused; and every failure is one of ours (kms_errors.py).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from keystow_service.adapters import kms_errors
from keystow_service.errors import KeystowError
from keystow_service.model import DataKey, KeyArn, KeyDescription, KeyState
from keystow_service.ports import EncryptionContext

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient  # a development dependency

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_DATA_KEY_SIZE = 32
_MAX_CIPHERTEXT_SIZE = 6144  # of Decrypt's CiphertextBlob
_OPERATIONS = ("GenerateDataKey", "Decrypt", "DescribeKey")

_STATES = {
    "Enabled": KeyState.ENABLED,
    "Disabled": KeyState.DISABLED,
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingReplicaDeletion": KeyState.PENDING_DELETION,
    "PendingImport": KeyState.PENDING_IMPORT,
}


@dataclass(frozen=True, slots=True)
class KmsPatience:
    """How long KMS is waited for. Seconds, save ``attempts``."""

    connect: float = 3.0
    read: float = 5.0
    attempts: int = 3
    # Bounds what the others do not: name resolution, a free connection, credentials, the pauses between attempts.
    call: float = 20.0
    # A refusal must end the lease at once, so DescribeKey has little time to say which refusal it is.
    explanation: float = 2.0


@asynccontextmanager
async def open_kms(
    region: str,
    *,
    endpoint: str | None = None,
    session: AioSession | None = None,
    patience: KmsPatience | None = None,
) -> AsyncIterator["AwsKms"]:
    """KMS of one region, with the credentials that botocore finds, or the session's. ``endpoint`` replaces AWS's own.

    The client's own retries are right here: all three operations may be repeated, "standard" mode backs off with
    jitter, and its retry quota is shared by all calls of the client, so that an outage is not answered with a storm.
    """
    patience = patience or KmsPatience()
    config = AioConfig(
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
    )
    session = session or AioSession()
    async with session.create_client("kms", region_name=region, endpoint_url=endpoint, config=config) as client:
        yield AwsKms(client, patience)


class AwsKms:
    """A KeyService."""

    def __init__(self, client: "KMSClient", patience: KmsPatience) -> None:
        self._client = client
        self._patience = patience

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html"""
        answer = await self._ask(
            arn,
            self._client.generate_data_key(KeyId=arn.text, KeySpec="AES_256", EncryptionContext=dict(context)),
        )
        plaintext, wrapped = answer.get("Plaintext", b""), answer.get("CiphertextBlob", b"")
        _check(arn, answer.get("KeyId"), plaintext)
        if not wrapped:
            raise _strange(arn)
        return DataKey(plaintext, wrapped)

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> bytes:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html"""
        if not 1 <= len(wrapped) <= _MAX_CIPHERTEXT_SIZE:
            raise kms_errors.WRAPPED_KEY_INVALID.error(arn, None)
        answer = await self._ask(
            arn,
            self._client.decrypt(KeyId=arn.text, CiphertextBlob=wrapped, EncryptionContext=dict(context)),
        )
        plaintext = answer.get("Plaintext", b"")
        _check(arn, answer.get("KeyId"), plaintext)
        return plaintext

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html"""
        answer = await self._ask(arn, self._client.describe_key(KeyId=arn.text))
        metadata = answer.get("KeyMetadata")
        if metadata is None or metadata.get("Arn") != arn.text:
            raise _strange(arn)
        deletion_time = metadata.get("DeletionDate")
        return KeyDescription(
            arn=arn,
            state=_STATES.get(metadata.get("KeyState", ""), KeyState.UNAVAILABLE),
            customer_managed=metadata.get("KeyManager") == "CUSTOMER",
            symmetric_encryption=metadata.get("KeySpec") == "SYMMETRIC_DEFAULT"
            and metadata.get("KeyUsage") == "ENCRYPT_DECRYPT",
            deletion_time=None if deletion_time is None else deletion_time.astimezone(UTC),
        )

    async def _ask(self, arn: KeyArn, request: Awaitable[_T]) -> _T:
        """The answer to a request about a key, or one of our errors."""
        try:
            async with asyncio.timeout(self._patience.call):
                return await request
        except ClientError as error:
            refusal = error
        except (BotoCoreError, ResponseParserError) as error:
            raise kms_errors.by_exception(error).error(arn, None) from None
        except TimeoutError:
            raise kms_errors.UNAVAILABLE.error(arn, None) from None
        raise await self._explained(arn, refusal)

    async def _explained(self, arn: KeyArn, refusal: ClientError) -> KeystowError:
        answer = refusal.response
        code, request_id = kms_errors.error_code(answer), kms_errors.request_id(answer)
        if refusal.operation_name not in _OPERATIONS:  # STS, on the way to credentials
            verdict = kms_errors.CREDENTIALS
        elif code in kms_errors.STATE_CODES:
            verdict = await self._tell_apart(arn, code, answer.get("Error", {}).get("Message", ""))
        else:
            verdict = kms_errors.by_code(code, request_id)
        return verdict.error(arn, request_id)

    async def _tell_apart(self, arn: KeyArn, code: str, text: str) -> kms_errors.Verdict:
        """A key pending deletion answers with either of the STATE_CODES: ask for its state and date."""
        try:
            async with asyncio.timeout(self._patience.explanation):
                answer = await self._client.describe_key(KeyId=arn.text)
        except (ClientError, BotoCoreError, ResponseParserError, TimeoutError) as error:
            log.info("kms.key_not_described", key_arn=arn.text, kind=type(error).__name__)
            return kms_errors.by_text(code, text)
        metadata = answer.get("KeyMetadata", {})
        return kms_errors.by_state(code, metadata.get("KeyState", ""), metadata.get("DeletionDate"))


def _check(arn: KeyArn, answered_for: str | None, plaintext: bytes) -> None:
    if answered_for != arn.text or len(plaintext) != _DATA_KEY_SIZE:
        raise _strange(arn)


def _strange(arn: KeyArn) -> KeystowError:
    log.error("kms.strange_answer", key_arn=arn.text)
    return kms_errors.INTERNAL.error(arn, None)
