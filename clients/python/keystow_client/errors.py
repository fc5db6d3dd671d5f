"""Failures as callers catch them: by class for the kind, by ``reason`` for the cause, by ``recovery`` for what helps.

Everything is read from the status that ended the call; docs/errors.md lists the reasons. A failure without the
service's ErrorInfo was made by gRPC, a proxy or the network: it is a TransportError where that means loss of transport.
Whatever bytes a peer puts into the status, parsing them never raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "keystow"
_DETAILS_KEY = "grpc-status-details-bin"

_Detail = TypeVar("_Detail", bound=Message)


class Recovery(StrEnum):
    """What helps against a failure; holds also for reasons this client has never heard of."""

    RETRY = "retry"  # the same call, later
    RESUME = "resume"  # continue from the last token or offset
    RESTART = "restart"  # a new upload or call from the beginning
    WAIT = "wait"  # somebody must change something first
    NONE = "none"  # nothing will help


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: a request field, a named check of a key, or a quota."""

    subject: str
    description: str


class KeystowError(Exception):
    """A call failed.

    ``code`` is None where the client itself found the failure. ``reason`` is the service's name for the cause, empty
    where the service said nothing. ``retry_after`` is in seconds. ``attempts`` counts how often the call was tried.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        recovery: Recovery = Recovery.NONE,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        """Everything but the message has a default, so that instances survive pickling."""
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.recovery = recovery
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.attempts = 1

    @property
    def request_id(self) -> str:
        """Finds the call in the service's logs and audit; empty where the service said nothing."""
        return self.metadata.get("requestId", "")

    def __str__(self) -> str:
        """One line: reason, message, request id."""
        text = f"{self.reason}: {self.message}" if self.reason else self.message
        return f"{text} (requestId {self.request_id})" if self.request_id else text


class InvalidRequestError(KeystowError):
    """INVALID_ARGUMENT or OUT_OF_RANGE: the request itself is wrong; ``violations`` name its fields."""


class NotFoundError(KeystowError):
    """NOT_FOUND: an object, but also a tenant or a KMS key. Ask is_object_not_found before calling an object absent."""


class AlreadyExistsError(KeystowError):
    """ALREADY_EXISTS: the object, tenant or upload is there already."""


class FailedPreconditionError(KeystowError):
    """FAILED_PRECONDITION: somebody must change something first, such as enabling a KMS key."""


class PermissionDeniedError(KeystowError):
    """PERMISSION_DENIED: the caller may not do this, or the service may not use the tenant's KMS key."""


class UnauthenticatedError(KeystowError):
    """UNAUTHENTICATED: no credentials, or bad ones."""


class AbortedError(KeystowError):
    """ABORTED: a concurrent change won; start again from what is current."""


class ResourceExhaustedError(KeystowError):
    """RESOURCE_EXHAUSTED: a quota, a limit or a disk is full."""


class UnavailableError(KeystowError):
    """UNAVAILABLE, said by the service: it or something it needs is out of reach for now."""


class UnimplementedError(KeystowError):
    """UNIMPLEMENTED: this server does not offer the call, option or object format."""


class DataLossError(KeystowError):
    """DATA_LOSS: what is stored is damaged."""


class TransportError(KeystowError):
    """The connection broke, or a peer that is not the service answered. The outcome of the call is unknown."""


class TlsError(TransportError):
    """TLS keeps client and server apart: a certificate is not accepted, or one of them does not speak TLS.

    Nothing was sent, and trying again does not help: ``recovery`` is WAIT.
    """


class IncompleteError(TransportError):
    """The stream ended well, but before its last message."""


class IntegrityError(KeystowError):
    """What arrived, or what the server says it stored, differs from what it must be: a checksum, offset or length."""


class SourceChangedError(KeystowError):
    """The source gave more or fewer bytes than its size promised. Nothing was stored."""


_CODES: Mapping[int, grpc.StatusCode] = MappingProxyType({code.value[0]: code for code in grpc.StatusCode})

_BY_CODE: Mapping[grpc.StatusCode, type[KeystowError]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
        grpc.StatusCode.NOT_FOUND: NotFoundError,
        grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
        grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
        grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
        grpc.StatusCode.ABORTED: AbortedError,
        grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
        grpc.StatusCode.UNAVAILABLE: UnavailableError,
        grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
        grpc.StatusCode.DATA_LOSS: DataLossError,
    }
)

# Without ErrorInfo these mean loss of transport. DEADLINE_EXCEEDED is the client's own limit on a silent server.
_TRANSPORT_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)

# For an ErrorInfo whose recovery this client cannot read.
_RECOVERY_BY_CODE: Mapping[grpc.StatusCode, Recovery] = MappingProxyType(
    {
        grpc.StatusCode.UNAVAILABLE: Recovery.RETRY,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Recovery.RETRY,
        grpc.StatusCode.ABORTED: Recovery.RESTART,
        grpc.StatusCode.FAILED_PRECONDITION: Recovery.WAIT,
    }
)


def is_object_not_found(error: BaseException) -> bool:
    """True only if the service said that the object does not exist: NOT_FOUND also reports tenants and KMS keys."""
    return isinstance(error, KeystowError) and error.reason == "OBJECT_NOT_FOUND"


def from_rpc_error(error: grpc.aio.AioRpcError) -> KeystowError:
    """The failure that a call ended with."""
    return _from(error.code(), error.details() or error.code().name, _status(error))


def from_status(status: status_pb2.Status) -> KeystowError:
    """The failure that a message tells of, such as one object's in an Export."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _from(code, status.message or code.name, status)


def _from(code: grpc.StatusCode, text: str, status: status_pb2.Status) -> KeystowError:
    info = next((info for info in _unpack(status, error_details_pb2.ErrorInfo) if info.domain == DOMAIN), None)
    if info is None:
        if code in _TRANSPORT_CODES:
            return TransportError(f"{code.name}: {text}", code=code, recovery=Recovery.RETRY)
        return _BY_CODE.get(code, KeystowError)(f"{code.name}: {text}", code=code)
    retry = next(_unpack(status, error_details_pb2.RetryInfo), None)
    return _BY_CODE.get(code, KeystowError)(
        text,
        code=code,
        reason=info.reason,
        recovery=_recovery(info.metadata.get("recovery", ""), code),
        metadata=info.metadata,
        violations=_violations(status),
        retry_after=None if retry is None else max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9),
    )


def _recovery(text: str, code: grpc.StatusCode) -> Recovery:
    try:
        return Recovery(text)
    except ValueError:
        return _RECOVERY_BY_CODE.get(code, Recovery.NONE)


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The rich status of a call; empty where there is none, or garbage, or one of another failure."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                continue
            if status.code == error.code().value[0]:
                return status
    return status_pb2.Status()


def _unpack(status: status_pb2.Status, kind: type[_Detail]) -> Iterator[_Detail]:
    for packed in status.details:
        detail = kind()
        try:
            if packed.Unpack(detail):
                yield detail
        except DecodeError:
            continue


def _violations(status: status_pb2.Status) -> list[Violation]:
    return [
        *(
            Violation(violation.field, violation.description)
            for request in _unpack(status, error_details_pb2.BadRequest)
            for violation in request.field_violations
        ),
        *(
            Violation(violation.type or violation.subject, violation.description)
            for precondition in _unpack(status, error_details_pb2.PreconditionFailure)
            for violation in precondition.violations
        ),
        *(
            Violation(violation.subject, violation.description)
            for quota in _unpack(status, error_details_pb2.QuotaFailure)
            for violation in quota.violations
        ),
    ]
