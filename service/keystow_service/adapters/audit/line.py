"""One line of the audit log, and how it is chained to the one before it. docs/audit.md specifies it.

The promise: what is hashed and signed are the bytes as they stand in the file. Nothing is parsed and written again to
compare it, so nothing that is read differently can be hashed alike.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = 1
MAX_LINE = 64 * 1024  # bytes, the newline included
MAX_UNSIGNED = 1_000  # lines in a row that are no checkpoint

# The events that the chain itself needs; fields.py has the others.
START, FILE, CHECKPOINT, GAP, STOP = "start", "file", "checkpoint", "gap", "stop"

NOTHING = "0" * 64  # what the first line of a chain names as the hash of the one before

FILE_NAME = re.compile(r"(?P<writer>[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8})\.(?P<number>[0-9]{6,})\.jsonl")

_MAX_SEQ = (1 << 63) - 1
_HASH = re.compile(r"[0-9a-f]{64}")
_SIGNED = b"keystow audit checkpoint v1\0"
_SIGNATURE = b',"signature":"'
_HEXADECIMAL = re.compile(rb'([0-9a-f]{128})"}')  # in this form alone, so that no byte of the line can be another

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain is: its last line's number and hash. ``final``: its writer did not run any more."""

    writer: str
    seq: int
    hash: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A line, read. ``previous`` is the hash of the line before it."""

    writer: str
    seq: int
    previous: str
    event: str
    fields: Mapping[str, Any]  # all of them

    def ends(self) -> Sequence[End]:
        """Where the writer saw the chains of others. Raises ValueError."""
        others = self.fields.get("others", [])
        if not isinstance(others, list):
            raise ValueError("others is no list")  # noqa: TRY004 - one exception for a line that is none of ours
        return [parse_end(each) for each in others]


def new_writer(now: datetime) -> str:
    """A name that no other writer has, and that sorts by its start: date, time to the millisecond, and chance."""
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z-{secrets.token_hex(4)}"


def file_name(writer: str, number: int) -> str:
    """Of the writer's file with this number, from 1. Sorted, names are in the order of writing."""
    return f"{writer}.{number:06}.jsonl"


def encode(end: End, time: datetime, event: str, fields: Mapping[str, object]) -> bytes:
    """The line that follows ``end``, without its newline. ``time`` is in UTC."""
    head = {
        "writer": end.writer,
        "seq": end.seq + 1,
        "prev": end.hash,
        "time": timestamp(time),
        "event": event,
    }
    return _encode({**head, **fields}).encode()


def timestamp(time: datetime) -> str:
    """As in the log: RFC 3339, in UTC, to the microsecond."""
    return time.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def digest(line: bytes) -> str:
    """The hash of a line without its newline: SHA-256, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def signed(line: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The line with a signature of all that was in it, and so of all lines before it."""
    return line[:-1] + _SIGNATURE + sign(_SIGNED + line).hex().encode() + b'"}'


def signature_holds(line: bytes, keys: Sequence[Ed25519PublicKey]) -> bool:
    """Whether one of these keys signed the line."""
    body, mark, rest = line.rpartition(_SIGNATURE)
    match = _HEXADECIMAL.fullmatch(rest)
    if not mark or match is None:
        return False
    signature = bytes.fromhex(match[1].decode())
    return any(_verifies(key, signature, _SIGNED + body + b"}") for key in keys)


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def parse(line: bytes) -> Entry:
    """Raises ValueError for what is no line of an audit log."""
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    match fields:
        case {"writer": str(writer), "seq": int(seq), "prev": str(previous), "event": str(event)} if (
            seq > 0 and _HASH.fullmatch(previous)
        ):
            return Entry(writer, seq, previous, event, fields)
        case _:
            raise ValueError("no line of an audit log")


def parse_end(value: object) -> End:
    """What a line says of the end of a chain. Raises ValueError for what is none."""
    match value:
        case {"writer": str(writer), "seq": int(seq), "hash": str(hashed), **more} if (
            0 < seq <= _MAX_SEQ and _HASH.fullmatch(hashed)
        ):
            return End(writer, seq, hashed, final=more.get("final") is True)
        case _:
            raise ValueError("no end of a chain")
