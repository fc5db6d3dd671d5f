"""AWS KMS as a KeyService.

The promise: every request names the key by its full ARN and carries the encryption context, so that the customer's own
CloudTrail shows it; an answer for another key is refused; and every failure is one of ours (kms_errors.py).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from keystow_service.adapters import kms_errors
from keystow_service.adapters.kms_explained import Announced, ExplainedKms
from keystow_service.adapters.kms_limits import LimitedKms
from keystow_service.errors import KeystowError, KmsKeyArnInvalidError
from keystow_service.keys.repeated import RepeatedKeyService, RepeatPolicy
from keystow_service.model import DataKey, KeyArn, KeyDescription, KeyOrigin, KeyState
from keystow_service.ports import EncryptionContext, KeyService

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient  # a development dependency
    from types_aiobotocore_kms.type_defs import DecryptResponseTypeDef, GenerateDataKeyResponseTypeDef

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_DATA_KEY_SIZE = 32
# Requests under way at once. Keys in slow external key stores keep theirs for seconds; others must not wait for them.
_MAX_CONNECTIONS = 256
_OPERATIONS = ("GenerateDataKey", "Decrypt", "DescribeKey")

# What botocore raises, and what we raise, on taking apart an answer that is not the JSON that KMS promises.
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, KmsKeyArnInvalidError)

_STATES = {
    "Enabled": KeyState.ENABLED,
    "Disabled": KeyState.DISABLED,
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingReplicaDeletion": KeyState.PENDING_DELETION,
    "PendingImport": KeyState.PENDING_IMPORT,
    "Unavailable": KeyState.UNAVAILABLE,  # its key store is
}
_ORIGINS = {origin.value: origin for origin in KeyOrigin}


@dataclass(frozen=True, slots=True)
class KmsPatience:
    """How long KMS is waited for. Seconds, save ``attempts``."""

    connect: float = 3.0
    read: float = 5.0
    attempts: int = 3
    # Bounds what the others do not: name resolution, a free connection, credentials; and when attempts are begun.
    call: float = 20.0
    # For DescribeKey to say which refusal it is.
    explanation: float = 2.0


async def _nothing_announced(arn: KeyArn, context: EncryptionContext) -> datetime | None:  # noqa: ARG001 - Announced's
    return None


@asynccontextmanager
async def open_kms(
    region: str,
    *,
    endpoint: str | None = None,
    session: AioSession | None = None,
    patience: KmsPatience | None = None,
    around: Callable[[KeyService], KeyService] = lambda kms: kms,
    announced: Announced = _nothing_announced,
) -> AsyncIterator[KeyService]:
    """KMS of one region, with the credentials that botocore finds, or the session's. ``endpoint`` replaces AWS's own.

    What ``around`` puts around it sees every request that KMS gets: the client's own retries are off, and ours
    (keys/repeated.py) are in front. ``announced`` is asked for dates of deletions that KMS does not tell.
    """
    patience = patience or KmsPatience()
    config = AioConfig(
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"total_max_attempts": 1},
        max_pool_connections=_MAX_CONNECTIONS,
    )
    session = session or AioSession()
    async with session.create_client("kms", region_name=region, endpoint_url=endpoint, config=config) as client:
        explained = ExplainedKms(around(AwsKms(client, patience)), announced, patience.explanation)
        repeat = RepeatPolicy(attempts=patience.attempts, total=patience.call)
        yield RepeatedKeyService(LimitedKms(explained), repeat, SystemRandom().random)


class AwsKms:
    """A KeyService."""

    def __init__(self, client: "KMSClient", patience: KmsPatience) -> None:
        self._client = client
        self._patience = patience

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html"""
        with _readable(arn):
            answer = await self._ask(
                arn,
                self._client.generate_data_key(KeyId=arn.text, KeySpec="AES_256", EncryptionContext=dict(context)),
            )
            return DataKey(_plaintext(arn, answer), _present(answer["CiphertextBlob"]), kms_errors.request_id(answer))

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html"""
        with _readable(arn):
            answer = await self._ask(
                arn,
                self._client.decrypt(KeyId=arn.text, CiphertextBlob=wrapped, EncryptionContext=dict(context)),
            )
            return DataKey(_plaintext(arn, answer), wrapped, kms_errors.request_id(answer))

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService. https://docs.aws.amazon.com/kms/latest/APIReference/API_DescribeKey.html"""
        with _readable(arn):
            answer = await self._ask(arn, self._client.describe_key(KeyId=arn.text))
            metadata = answer["KeyMetadata"]
            state = _STATES.get(metadata.get("KeyState", ""))
            _expect(arn, metadata["Arn"])
            return KeyDescription(
                arn=arn,
                state=state or KeyState.UNAVAILABLE,
                customer_managed=metadata.get("KeyManager") == "CUSTOMER",
                symmetric_encryption=metadata.get("KeySpec") == "SYMMETRIC_DEFAULT"
                and metadata.get("KeyUsage") == "ENCRYPT_DECRYPT",
                origin=_ORIGINS.get(metadata.get("Origin", ""), KeyOrigin.OTHER),
                multi_region=metadata.get("MultiRegion", False),
                valid_to=_utc(metadata.get("ValidTo")),
                deletion_time=_utc(metadata.get("DeletionDate")),
                request_id=kms_errors.request_id(answer),
                transitioning=state is None,  # Creating, Updating, and what this release has never heard of
            )

    async def _ask(self, arn: KeyArn, request: Awaitable[_T]) -> _T:
        """The answer to a request about a key, or one of our errors."""
        try:
            async with asyncio.timeout(self._patience.call):
                return await request
        except ClientError as error:
            raise _refusal(arn, error) from None
        except (BotoCoreError, ResponseParserError) as error:
            raise kms_errors.by_exception(error).error(arn) from None
        except TimeoutError:
            raise kms_errors.UNAVAILABLE.error(arn) from None


def _refusal(arn: KeyArn, error: ClientError) -> KeystowError:
    if error.operation_name not in _OPERATIONS:  # STS, on the way to credentials; the request's id is its own
        return kms_errors.CREDENTIALS.error(arn)
    code, request_id = kms_errors.error_code(error.response), kms_errors.request_id(error.response)
    if code in kms_errors.STATE_CODES:
        verdict = kms_errors.by_text(code, kms_errors.error_text(error.response))
    else:
        verdict = kms_errors.by_code(code, request_id)
    return verdict.error(arn, request_id)


@contextmanager
def _readable(arn: KeyArn) -> Iterator[None]:
    """Around an answer and all that is taken from it. Raises KmsUnavailableError for what is not what KMS promises."""
    try:
        yield
    except _UNREADABLE as error:
        log.warning("kms.unreadable_answer", key_arn=arn.text, kind=type(error).__name__)
        raise kms_errors.UNAVAILABLE.error(arn) from None


def _plaintext(arn: KeyArn, answer: "GenerateDataKeyResponseTypeDef | DecryptResponseTypeDef") -> bytes:
    _expect(arn, answer["KeyId"])
    if len(answer["Plaintext"]) != _DATA_KEY_SIZE:
        raise ValueError("no data key")
    return answer["Plaintext"]


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)


def _present(blob: bytes) -> bytes:
    if not blob:
        raise ValueError("nothing in it")
    return blob


def _expect(arn: KeyArn, answered_for: str) -> None:
    """KMS answered for this key. Raises InternalError for another one: that no repetition mends."""
    if KeyArn.parse(answered_for) != arn:
        log.error("kms.strange_answer", key_arn=arn.text)
        raise kms_errors.INTERNAL.error(arn)
