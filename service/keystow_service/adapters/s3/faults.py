"""What a failed S3 call means: whether it may have been carried out, and which of our errors it is.

Branches on S3's error codes (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), never on exception
classes that botocore makes of them. No text of S3 or botocore goes further than this file.
"""

import re
import socket
from collections.abc import Mapping
from enum import Enum

import aiohttp
import structlog
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ResponseStreamingError,
    SSLError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from keystow_service.errors import (
    Details,
    InternalError,
    KeystowError,
    ProviderCredentialsError,
    StoreMisconfiguredError,
    StoreThrottledError,
    StoreUnavailableError,
)

log = structlog.get_logger(__name__)

# Everything that an aiobotocore call, or reading its body, raises of its own.
RAISED = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError, TimeoutError)

# Codes that the callers give a meaning.
NO_SUCH_KEY = "NoSuchKey"
NO_SUCH_UPLOAD = "NoSuchUpload"
INVALID_PART = "InvalidPart"
PRECONDITION_FAILED = "PreconditionFailed"
INVALID_RANGE = "InvalidRange"
INVALID_OBJECT_STATE = "InvalidObjectState"
_MEANT_FOR_CALLERS = frozenset(
    {NO_SUCH_KEY, NO_SUCH_UPLOAD, INVALID_PART, PRECONDITION_FAILED, INVALID_RANGE, INVALID_OBJECT_STATE}
)

_SERVER_ERRORS = 500
_SLOW_DOWN_STATUS = 503
_THROTTLED = frozenset(
    {
        "SlowDown",
        "BandwidthLimitExceeded",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
# Another conditional write, or a delete, of the same name was under way.
_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})
# The request arrived damaged or incomplete.
_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentChecksumMismatch"})
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_MISCONFIGURED = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",  # signed for another region
        "IllegalLocationConstraintException",
        "InvalidBucketName",
        "InvalidBucketState",
        "KeyTooLongError",  # of servers over a file system, which take no long names
        "NoSuchBucket",
        "NotImplemented",
        "NotSignedUp",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
_BUCKET_KEY = "KMS."  # codes of a bucket whose own encryption key cannot be used
# Of answers without a body, botocore gives the status as the code.
_BODILESS = {
    "301": "PermanentRedirect",
    "403": "AccessDenied",
    "404": NO_SUCH_KEY,
    "412": PRECONDITION_FAILED,
    "429": "TooManyRequests",
}

_NEVER_SENT = (ConnectTimeoutError, ProxyConnectionError, SSLError)
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
_UNANSWERED = (
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    ResponseStreamingError,
    aiohttp.ClientError,
    OSError,
    TimeoutError,
)


class Verdict(Enum):
    """What has become of the request."""

    REFUSED = "refused"  # not carried out, nor will it be
    UNDONE = "undone"  # certainly not carried out; may be if sent again
    CONFLICT = "conflict"  # not carried out, because of another request for the same name
    UNKNOWN = "unknown"  # perhaps carried out


class S3Fault(Exception):  # noqa: N818 - stays inside this package
    """A call that failed. ``error`` is what it is to callers who give ``code`` no meaning of their own."""

    def __init__(self, verdict: Verdict, code: str, error: KeystowError) -> None:
        super().__init__(code)
        self.verdict = verdict
        self.code = code
        self.error = error
        self.in_doubt = False  # whether the call was sent before, and perhaps carried out then


def read_fault(raised: Exception) -> S3Fault:
    """What one of RAISED means."""
    if isinstance(raised, ClientError):
        return _answered(raised)
    if isinstance(raised, _NO_CREDENTIALS):
        return S3Fault(Verdict.REFUSED, "", _credentials_error(""))
    if isinstance(raised, _NEVER_SENT) or (isinstance(raised, EndpointConnectionError) and _not_connected(raised)):
        return S3Fault(Verdict.UNDONE, "", _unavailable_error(""))
    if isinstance(raised, _UNANSWERED):
        return S3Fault(Verdict.UNKNOWN, "", _unavailable_error(""))
    log.error("s3.client_failed", failure=type(raised).__name__)
    return S3Fault(Verdict.REFUSED, "", InternalError("The S3 client could not make a request."))


def _not_connected(raised: EndpointConnectionError) -> bool:
    """The same is raised for a connection that broke after the request was sent."""
    return isinstance(raised.kwargs.get("error"), aiohttp.ClientConnectorError | socket.gaierror)


def _answered(raised: ClientError) -> S3Fault:
    code = raised.response.get("Error", {}).get("Code", "")
    code = _BODILESS.get(code, code)
    metadata = raised.response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    request_id = metadata.get("RequestId", "")
    verdict = _verdict(code, status)
    if verdict is Verdict.REFUSED and code not in _MEANT_FOR_CALLERS:
        operation = raised.operation_name
        log.error("s3.refused", operation=operation, status=status, code=_safe(code), aws_request_id=request_id)
    if code in _THROTTLED or status == _SLOW_DOWN_STATUS:
        error = _throttled_error(request_id, metadata.get("HTTPHeaders", {}))
    elif verdict is not Verdict.REFUSED:
        error = _unavailable_error(request_id)
    elif code in _CREDENTIALS:
        error = _credentials_error(request_id)
    elif _is_misconfiguration(code):
        error = _misconfigured_error(request_id)
    else:
        error = _unknown_error(raised.operation_name, status, request_id)
    return S3Fault(verdict, code, error)


def _verdict(code: str, status: int) -> Verdict:
    """Of a 503, only S3's own word says that nothing was done: a bare one may come from what stands in front of it."""
    if code in _THROTTLED or code in _DAMAGED:
        return Verdict.UNDONE
    if code in _CONFLICTS:
        return Verdict.CONFLICT
    if status >= _SERVER_ERRORS and not _is_misconfiguration(code):
        return Verdict.UNKNOWN
    return Verdict.REFUSED


def _is_misconfiguration(code: str) -> bool:
    return code in _MISCONFIGURED or code.startswith(_BUCKET_KEY)


def _unknown_error(operation: str, status: int, request_id: str) -> KeystowError:
    return InternalError(
        f"S3 refused {operation} with status {status}, for a reason unknown to keystow. Its code is in the log.",
        **_details(request_id),
    )


def _unavailable_error(request_id: str) -> KeystowError:
    return StoreUnavailableError("S3 did not answer, or failed. Try again later.", **_details(request_id))


def _throttled_error(request_id: str, headers: Mapping[str, str]) -> KeystowError:
    delay = headers.get("retry-after", "")
    return StoreThrottledError(
        "S3 asks for fewer requests. Try again later.",
        retry_after=float(delay) if re.fullmatch(r"[0-9]{1,4}", delay) else None,
        **_details(request_id),
    )


def _credentials_error(request_id: str) -> KeystowError:
    return ProviderCredentialsError(
        "The service has no AWS credentials that S3 takes, or its clock is off. See its role, and its time.",
        **_details(request_id),
    )


def _misconfigured_error(request_id: str) -> KeystowError:
    return StoreMisconfiguredError(
        "The bucket is missing, in another region, closed to the service, or unfit. The log has S3's code.",
        **_details(request_id),
    )


def _details(request_id: str) -> Details:
    return {"aws_request_id": request_id} if request_id else {}


def _safe(code: str) -> str:
    """A code is an identifier; what is not, is not logged."""
    return code if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", code) else "unreadable"
