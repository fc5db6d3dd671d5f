"""What AWS KMS and its client say when something goes wrong, in our words.

The promise: codes decide, never exception classes, HTTP statuses or foreign texts (AccessDeniedException,
ThrottlingException and ValidationException are not in botocore's model, and KMS answers 400 for nearly all); a code
that is not in the tables is an InternalError; and nothing that AWS wrote stands in a message of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import structlog
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as NotConnectedError,
)
from botocore.parsers import ResponseParserError

from keystow_service.errors import (
    Details,
    InternalError,
    KeystowError,
    KmsAccessDeniedError,
    KmsGrantInvalidError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyPendingImportError,
    KmsKeyStoreUnavailableError,
    KmsKeyTransitioningError,
    KmsKeyUsageInvalidError,
    KmsThrottledError,
    KmsUnavailableError,
    ProviderCredentialsError,
    WrappedKeyInvalidError,
)
from keystow_service.model import KeyArn, KeyDescription, KeyState

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of our errors, before it is known whose key it is about."""

    kind: type[KeystowError]
    message: str
    key_state: KeyState | None = None
    retry_after: float | None = None  # seconds
    deletion_time: datetime | None = None

    def error(self, arn: KeyArn, request_id: str = "") -> KeystowError:
        """The error to raise."""
        details: Details = {"key_arn": arn.text}
        if self.key_state is not None:
            details["key_state"] = self.key_state.value
        if self.deletion_time is not None:
            details["deletion_time"] = self.deletion_time.isoformat(timespec="seconds")
        if request_id:
            details["aws_request_id"] = request_id
        return self.kind(self.message, retry_after=self.retry_after, **details)


DISABLED = Verdict(
    KmsKeyDisabledError,
    "The KMS key is disabled. Everything works again once its owner enables it.",
    KeyState.DISABLED,
)
PENDING_DELETION = Verdict(
    KmsKeyPendingDeletionError,
    "The KMS key is scheduled for deletion. Until then its owner can cancel the deletion and enable the key; "
    "afterwards the data is unreadable for good.",
    KeyState.PENDING_DELETION,
)
PENDING_IMPORT = Verdict(
    KmsKeyPendingImportError,
    "The KMS key has no key material: its owner must import it, again if it has expired.",
    KeyState.PENDING_IMPORT,
)
STORE_UNAVAILABLE = Verdict(
    KmsKeyStoreUnavailableError,
    "AWS KMS cannot reach the custom or external key store that holds the key. Its owner must see to it.",
    KeyState.UNAVAILABLE,
)
TRANSITIONING = Verdict(
    KmsKeyTransitioningError,
    "The KMS key is in a state that does not allow its use, and should leave it by itself. Try again.",
    KeyState.UNAVAILABLE,
)
NOT_FOUND = Verdict(
    KmsKeyNotFoundError,
    "AWS KMS knows no such key: it is deleted, or was never there.",
    KeyState.NOT_FOUND,
)
ACCESS_DENIED = Verdict(
    KmsAccessDeniedError,
    "AWS KMS does not let the service use the key for this tenant. Its owner must grant kms:DescribeKey, "
    "kms:GenerateDataKey and kms:Decrypt in the key's policy, as GetKeyPolicy shows it: "
    "to the same role, for the same tenant and deployment.",
    KeyState.ACCESS_DENIED,
)
USAGE_INVALID = Verdict(KmsKeyUsageInvalidError, "The KMS key is not a symmetric encryption key.")
GRANT_INVALID = Verdict(KmsGrantInvalidError, "AWS KMS refused the grant token.", KeyState.ACCESS_DENIED)
WRAPPED_KEY_INVALID = Verdict(
    WrappedKeyInvalidError,
    "The data key does not open under the tenant's KMS key: it is damaged, or belongs to another key or tenant.",
)
UNAVAILABLE = Verdict(KmsUnavailableError, "AWS KMS did not answer, or failed. Try again.", retry_after=1.0)
THROTTLED = Verdict(
    KmsThrottledError,
    "AWS KMS throttles the service's requests: its request quota in this region is used up. Try again later.",
    retry_after=2.0,
)
CREDENTIALS = Verdict(
    ProviderCredentialsError,
    "AWS refused the service's own credentials, or there are none. The service's operator must see to it.",
)
INTERNAL = Verdict(InternalError, "AWS KMS gave an answer that the service does not know. Its log holds the code.")

# https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html#API_Decrypt_Errors, likewise GenerateDataKey and
# DescribeKey, and https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html.
# DisabledException and KMSInvalidStateException do not say enough: STATE_CODES.
BY_CODE: Mapping[str, Verdict] = MappingProxyType(
    {
        "NotFoundException": NOT_FOUND,
        "AccessDeniedException": ACCESS_DENIED,
        "InvalidKeyUsageException": USAGE_INVALID,
        "InvalidGrantTokenException": GRANT_INVALID,
        "IncorrectKeyException": WRAPPED_KEY_INVALID,
        "InvalidCiphertextException": WRAPPED_KEY_INVALID,
        "KeyUnavailableException": UNAVAILABLE,
        "DependencyTimeoutException": UNAVAILABLE,
        "KMSInternalException": UNAVAILABLE,
        "InternalFailure": UNAVAILABLE,
        "InternalError": UNAVAILABLE,
        "InternalServerError": UNAVAILABLE,
        "ServiceUnavailable": UNAVAILABLE,
        "ServiceUnavailableException": UNAVAILABLE,
        "RequestTimeout": UNAVAILABLE,
        "RequestTimeoutException": UNAVAILABLE,
        "ThrottlingException": THROTTLED,
        "Throttling": THROTTLED,
        "ThrottledException": THROTTLED,
        "RequestLimitExceeded": THROTTLED,
        "TooManyRequestsException": THROTTLED,
        "LimitExceededException": THROTTLED,
        "429": THROTTLED,
        "UnrecognizedClientException": CREDENTIALS,
        "InvalidClientTokenId": CREDENTIALS,
        "ExpiredTokenException": CREDENTIALS,
        "ExpiredToken": CREDENTIALS,
        "InvalidSignatureException": CREDENTIALS,
        "SignatureDoesNotMatch": CREDENTIALS,
        "IncompleteSignature": CREDENTIALS,
        "IncompleteSignatureException": CREDENTIALS,
        "MissingAuthenticationToken": CREDENTIALS,
        "MissingAuthenticationTokenException": CREDENTIALS,
        "RequestExpired": CREDENTIALS,
        "OptInRequired": CREDENTIALS,
        "NotAuthorized": CREDENTIALS,
    }
)

# These do not say enough. The key's state decides; before it is known the text, and without a known text the code.
STATE_CODES: Mapping[str, Verdict] = MappingProxyType(
    {"DisabledException": DISABLED, "KMSInvalidStateException": TRANSITIONING}
)
_BY_STATE: Mapping[KeyState, Verdict] = MappingProxyType(
    {
        KeyState.DISABLED: DISABLED,
        KeyState.PENDING_DELETION: PENDING_DELETION,
        KeyState.PENDING_IMPORT: PENDING_IMPORT,
        KeyState.UNAVAILABLE: STORE_UNAVAILABLE,
    }
)
_BY_TEXT: Mapping[str, Verdict] = MappingProxyType(
    {
        " is disabled": DISABLED,
        " is pending deletion": PENDING_DELETION,
        " is pending replica deletion": PENDING_DELETION,
        " is pending import": PENDING_IMPORT,
        " is unavailable": STORE_UNAVAILABLE,
    }
)

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    SSOError,
    LoginError,
)


def by_description(key: KeyDescription) -> Verdict | None:
    """The verdict on a refusal that is about the key's state, now that it is known.

    None for a key that is enabled by now: the refusal says it all.
    """
    if key.transitioning:
        return TRANSITIONING
    verdict = _BY_STATE.get(key.state)
    if verdict is PENDING_DELETION:
        return pending_deletion(key.deletion_time)
    return verdict


def pending_deletion(date: datetime | None) -> Verdict:
    """The verdict on a key that is to be deleted, where it is known when."""
    if date is None:
        return PENDING_DELETION
    return replace(
        PENDING_DELETION,
        message=f"The KMS key is scheduled for deletion on {date:%Y-%m-%d %H:%M} UTC. Until then its owner can cancel "
        "the deletion and enable the key; afterwards the data is unreadable for good.",
        deletion_time=date,
    )


def by_text(code: str, text: str) -> Verdict:
    """The verdict on one of STATE_CODES, given AWS's sentence, such as "<ARN> is pending deletion."."""
    return next((verdict for pattern, verdict in _BY_TEXT.items() if pattern in text), STATE_CODES[code])


def by_code(code: str, request_id: str) -> Verdict:
    """The verdict on every other code."""
    verdict = BY_CODE.get(code)
    if (
        verdict is None and code.isdecimal()
    ):  # the status of an answer that is not from KMS but from something before it
        return UNAVAILABLE
    if verdict is None:
        log.error("kms.unknown_error_code", code=code[:64], aws_request_id=request_id)
        return INTERNAL
    return verdict


def by_exception(error: BotoCoreError | ResponseParserError) -> Verdict:
    """The verdict on a failure of the AWS client itself: no answer, an unreadable one, or no credentials."""
    if isinstance(error, _NO_CREDENTIALS):
        return CREDENTIALS
    if isinstance(error, NotConnectedError | HTTPClientError | ResponseParserError):
        return UNAVAILABLE
    log.error("kms.unknown_client_error", kind=type(error).__name__)
    return INTERNAL


def error_code(answer: Mapping[str, Any]) -> str:
    """The code in a ClientError's response."""
    return str(answer.get("Error", {}).get("Code", ""))


def error_text(answer: Mapping[str, Any]) -> str:
    """AWS's sentence in a ClientError's response. For by_text alone: it goes nowhere else."""
    return str(answer.get("Error", {}).get("Message", ""))


def request_id(answer: Mapping[str, Any]) -> str:
    """The request's id in an answer: CloudTrail's requestID. Empty where it has none."""
    return str(answer.get("ResponseMetadata", {}).get("RequestId", ""))
