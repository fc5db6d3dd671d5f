"""What the command's exit code says, so that scripts need not read messages."""

from collections.abc import Iterable
from enum import IntEnum

import grpc

from keystow_client.cli.state import StateError
from keystow_client.errors import AbortedError, DataLossError, IntegrityError, KeystowError, TransportError


class ExitCode(IntEnum):
    """By class of failure."""

    OK = 0
    OTHER = 1
    USAGE = 2
    NOT_FOUND = 3
    PRECONDITION = 4
    DENIED = 5
    KEY_UNAVAILABLE = 6
    DATA_LOSS = 7
    UNAVAILABLE = 8
    INCOMPLETE = 9
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


EXPLANATION = """\b
Exit codes:
  0  done
  1  another failure, or several kinds of them
  2  the command line or the request is wrong
  3  no such object or tenant
  4  it exists already, here or there, or is another version, or something must be changed first
  5  no or bad credentials, or not allowed
  6  the tenant's KMS key cannot be used (reasons KMS_*), or check-key found so
  7  what is stored, or what arrived, is damaged
  8  the service cannot be reached or is too busy, after all retries; or is full, or TLS keeps it apart
  9  the archive is whole, but objects that failed are missing from it (export --on-error continue)
130  interrupted by Ctrl-C (143 by SIGTERM, 141 when the reader of the output went away)
"""

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.PRECONDITION,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.PRECONDITION,
    grpc.StatusCode.ABORTED: ExitCode.PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.DENIED,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
}


def exit_code(error: Exception) -> ExitCode:
    """The class of one failure."""
    match error:
        case KeystowError():
            return _of_the_service(error)
        case FileExistsError() | StateError():
            return ExitCode.PRECONDITION
        case ValueError():  # an argument that cannot be sent at all
            return ExitCode.USAGE
    return ExitCode.OTHER


def _of_the_service(error: KeystowError) -> ExitCode:
    match error:
        case TransportError():
            return ExitCode.UNAVAILABLE
        case DataLossError() | IntegrityError():
            return ExitCode.DATA_LOSS
        case AbortedError():  # also where the client itself found out
            return ExitCode.PRECONDITION
        case _ if error.reason.startswith("KMS_"):
            return ExitCode.KEY_UNAVAILABLE
    return ExitCode.OTHER if error.code is None else _BY_CODE.get(error.code, ExitCode.OTHER)


def combined(codes: Iterable[ExitCode]) -> ExitCode:
    """One code for many results: the failures' own if they agree."""
    failures = set(codes) - {ExitCode.OK}
    match len(failures):
        case 0:
            return ExitCode.OK
        case 1:
            return failures.pop()
    return ExitCode.OTHER


def stops_everything(error: Exception) -> bool:
    """Whether the failure is not about one object, so that going on with the next one would only fail again."""
    return exit_code(error) in (ExitCode.DENIED, ExitCode.KEY_UNAVAILABLE, ExitCode.UNAVAILABLE) or (
        isinstance(error, KeystowError) and error.reason == "TENANT_NOT_FOUND"
    )
