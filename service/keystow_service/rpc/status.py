"""The one table from KeystowError to gRPC status, and the status that a caller receives.

Every failing call carries exactly one google.rpc.ErrorInfo (https://google.aip.dev/193), plus RetryInfo, BadRequest,
PreconditionFailure or QuotaFailure where they say more. ``python -m keystow_service.rpc.status`` prints docs/errors.md.
"""

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from keystow_service import errors
from keystow_service.errors import KeystowError

DOMAIN = "keystow"
MAX_DETAILS_SIZE = 4096

_Code = grpc.StatusCode

STATUS: Mapping[type[KeystowError], grpc.StatusCode] = MappingProxyType(
    {
        errors.KmsKeyDisabledError: _Code.FAILED_PRECONDITION,
        errors.KmsKeyPendingDeletionError: _Code.FAILED_PRECONDITION,
        errors.KmsKeyPendingImportError: _Code.FAILED_PRECONDITION,
        errors.KmsKeyStoreUnavailableError: _Code.UNAVAILABLE,
        errors.KmsKeyTransitioningError: _Code.UNAVAILABLE,
        errors.KmsKeyNotFoundError: _Code.NOT_FOUND,
        errors.KmsAccessDeniedError: _Code.PERMISSION_DENIED,
        errors.KmsKeyUsageInvalidError: _Code.FAILED_PRECONDITION,
        errors.KmsGrantInvalidError: _Code.PERMISSION_DENIED,
        errors.WrappedKeyInvalidError: _Code.DATA_LOSS,
        errors.KmsUnavailableError: _Code.UNAVAILABLE,
        errors.KmsThrottledError: _Code.RESOURCE_EXHAUSTED,
        errors.ProviderCredentialsError: _Code.UNAVAILABLE,
        errors.TenantNotFoundError: _Code.NOT_FOUND,
        errors.TenantExistsError: _Code.ALREADY_EXISTS,
        errors.KmsKeyInUseError: _Code.ALREADY_EXISTS,
        errors.KmsKeyUnusableError: _Code.FAILED_PRECONDITION,
        errors.KmsKeyArnInvalidError: _Code.INVALID_ARGUMENT,
        errors.KmsKeyRegionMismatchError: _Code.INVALID_ARGUMENT,
        errors.KeyPolicyUnavailableError: _Code.FAILED_PRECONDITION,
        errors.RegistryUnavailableError: _Code.UNAVAILABLE,
        errors.ObjectNotFoundError: _Code.NOT_FOUND,
        errors.ObjectExistsError: _Code.ALREADY_EXISTS,
        errors.VersionMismatchError: _Code.FAILED_PRECONDITION,
        errors.ObjectArchivedError: _Code.FAILED_PRECONDITION,
        errors.ObjectTamperedError: _Code.DATA_LOSS,
        errors.ObjectTruncatedError: _Code.DATA_LOSS,
        errors.ObjectHeaderInvalidError: _Code.DATA_LOSS,
        errors.ObjectFormatUnsupportedError: _Code.UNIMPLEMENTED,
        errors.ChecksumMismatchError: _Code.INVALID_ARGUMENT,
        errors.OffsetMismatchError: _Code.OUT_OF_RANGE,
        errors.SizeMismatchError: _Code.INVALID_ARGUMENT,
        errors.RangeNotSatisfiableError: _Code.OUT_OF_RANGE,
        errors.ObjectChangedError: _Code.ABORTED,
        errors.ObjectTooLargeError: _Code.OUT_OF_RANGE,
        errors.PageTokenInvalidError: _Code.INVALID_ARGUMENT,
        errors.CheckpointTokenInvalidError: _Code.INVALID_ARGUMENT,
        errors.RequestInvalidError: _Code.INVALID_ARGUMENT,
        errors.NotImplementedYetError: _Code.UNIMPLEMENTED,
        errors.InternalError: _Code.INTERNAL,
        errors.ResumeTokenInvalidError: _Code.INVALID_ARGUMENT,
        errors.UploadExpiredError: _Code.ABORTED,
        errors.UploadSupersededError: _Code.ABORTED,
        errors.WriteConflictError: _Code.ABORTED,
        errors.UploadIdReusedError: _Code.ALREADY_EXISTS,
        errors.UploadReplacedError: _Code.FAILED_PRECONDITION,
        errors.StoreUnavailableError: _Code.UNAVAILABLE,
        errors.StoreThrottledError: _Code.UNAVAILABLE,
        errors.StoreMisconfiguredError: _Code.INTERNAL,
        errors.StoreFullError: _Code.RESOURCE_EXHAUSTED,
        errors.CredentialsInvalidError: _Code.UNAUTHENTICATED,
        errors.CallerNotAuthorizedError: _Code.PERMISSION_DENIED,
        errors.QuotaExceededError: _Code.RESOURCE_EXHAUSTED,
        errors.OverloadedError: _Code.RESOURCE_EXHAUSTED,
        errors.StreamStalledError: _Code.DEADLINE_EXCEEDED,
        errors.AuditUnavailableError: _Code.UNAVAILABLE,
        errors.ShuttingDownError: _Code.UNAVAILABLE,
    }
)


def to_status(error: KeystowError, *, request_id: str, about: Mapping[str, str]) -> status_pb2.Status:
    """The status of a failed call. ``about`` is what the request named, such as tenantId and objectKey."""
    metadata = {
        **about,
        **{_camel_case(name): str(value) for name, value in error.details.items()},
        "requestId": request_id,
        "recovery": error.recovery.value,
    }
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=STATUS[type(error)].value[0], message=error.message, details=[_pack(info)])
    for detail in _more_details(error):
        packed = _pack(detail)
        if status.ByteSize() + packed.ByteSize() <= MAX_DETAILS_SIZE:
            status.details.append(packed)
    return status


def _more_details(error: KeystowError) -> Iterator[Message]:
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        yield retry
    if isinstance(error, errors.KmsKeyUnusableError):
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(
                    type=violation.subject,
                    subject=error.details.get("key_arn", ""),
                    description=violation.description,
                )
                for violation in error.violations
            ]
        )
    elif isinstance(error, errors.QuotaExceededError | errors.OverloadedError):
        yield error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(subject=violation.subject, description=violation.description)
                for violation in error.violations
            ]
        )
    elif error.violations:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=violation.subject, description=violation.description)
                for violation in error.violations
            ]
        )


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def reasons() -> Iterator[type[KeystowError]]:
    """Every error that has a reason, in the order of errors.py."""
    for error in vars(errors).values():
        if inspect.isclass(error) and issubclass(error, KeystowError) and hasattr(error, "reason"):
            yield error


_HEAD = """\
# Errors

<!-- Generated by `make docs` from rpc/status.py and errors.py. Do not edit. -->

Each failing call ends with one gRPC status that carries exactly one `google.rpc.ErrorInfo`: domain `keystow`, a reason
from this table, and metadata: always `requestId` (finds the call in the service's log) and `recovery`; where they apply
`tenantId`, `keyArn`, `keyState`, `deletionTime`, `objectKey`, `uploadId`, `persistedSize`, `awsRequestId`. `RetryInfo`
is added where a delay is known, `BadRequest` for invalid fields, `PreconditionFailure` for failed key checks,
`QuotaFailure` for quotas.

Act on `recovery`, so that a reason you have never heard of is handled too:

| recovery | do |
|---|---|
| retry | the same call again, later |
| resume | continue from the last token or offset; without one, begin again |
| restart | a new upload or call from the beginning |
| wait | nothing until somebody has changed something: a key, a policy, a setting |
| none | nothing will help; report it |

A failure without ErrorInfo was not made by keystow but on the way: treat UNAVAILABLE, INTERNAL, UNKNOWN and a CANCELLED
that you did not ask for as loss of transport, and retry. RESOURCE_EXHAUSTED without ErrorInfo is a message over the
transport's size limit. An object is absent only if the reason is OBJECT_NOT_FOUND: NOT_FOUND also reports a missing
tenant or KMS key.

| reason | gRPC code | recovery | when |
|---|---|---|---|
"""


def document() -> str:
    """The text of docs/errors.md."""
    return _HEAD + "".join(
        f"| {error.reason} | {STATUS[error].name} | {error.recovery.value} | {inspect.getdoc(error)} |\n"
        for error in reasons()
    )


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - this is what the command is for
