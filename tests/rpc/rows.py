"""One row for each bad request: what is sent, and all that the caller must be told."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

TENANT = "acme"  # the tenant of all rows; the test registers it
UPLOAD_ID = "0b0e8a4e-7a39-4d0a-9c1c-3f3c5e6f7a8b"

_INVALID = grpc.StatusCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class Row:
    """``messages`` to ``method`` end with this status. Without a ``reason`` it carries no ErrorInfo."""

    case: str
    method: str
    messages: tuple[Message | bytes, ...]
    code: grpc.StatusCode
    reason: str
    recovery: str
    violations: tuple[str, ...] = ()


def invalid(case: str, method: str, *messages: Message | bytes, violations: tuple[str, ...]) -> Row:
    """A request that breaks the rules of these fields."""
    return Row(case, method, messages, _INVALID, "REQUEST_INVALID", "none", violations)


def tenant_not_found(method: str, *messages: Message) -> Row:
    """A request for a tenant that nobody registered."""
    return Row(f"{method}: unknown tenant", method, messages, grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND", "none")


# What no tenant id looks like: 3 to 63 of a-z, 0-9 and '-', first a letter.
BAD_TENANT_IDS = {
    "empty": "",
    "two characters": "ab",
    "64 characters": "a" * 64,
    "upper case": "Acme",
    "digit first": "1acme",
    "trailing newline": "acme\n",
    "NUL": "acme\0",
    "another tenant's path": "acme/../umbrella",
    "dots": "..",
    "a letter that only looks like one": "\u0430cme",
}

# A key has 1 to 900 bytes after escaping, in which most bytes count as three and "/" as two.
BAD_KEYS = {
    "empty": "",
    "901 bytes": "a" * 901,
    "301 escaped bytes": "%" * 301,
    "151 two-byte characters": "é" * 151,
    "451 slashes": "/" * 451,
    # Far too long to be told back in a status.
    "1,024 four-byte characters": "\N{FLOPPY DISK}" * 1024,
    "100 KB": "a" * 100_000,
}
