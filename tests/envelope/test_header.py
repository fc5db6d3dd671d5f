"""The header is parsed strictly, and everything allowed fits it (envelope/header.py, envelope/sealing.py)."""

import dataclasses
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.stored import ARN, CORE, DATA_KEY, METADATA
from keystow.storage.v1 import object_pb2
from keystow_service.envelope import header
from keystow_service.envelope.header import MAX_KEY_ARN_SIZE, MAX_REPLACED, MAX_WRAPPED_KEY_SIZE, Core, Wrap
from keystow_service.envelope.layout import HEADER_LENGTH
from keystow_service.envelope.sealing import (
    MAX_PRINCIPAL_SIZE,
    Metadata,
    open_metadata,
    seal_metadata,
    user_metadata_size,
)
from keystow_service.errors import ObjectFormatUnsupportedError, ObjectHeaderInvalidError, RequestInvalidError
from keystow_service.model import MAX_CONTENT_TYPE_SIZE, MAX_KEY_SIZE, MAX_METADATA_SIZE, ObjectKey, TenantId, UploadId

KEY = b"k" * 32
NONCE = b"n" * 12
CORE_BYTES = CORE.encode()
WRAP = Wrap(ARN.text, DATA_KEY.wrapped)
SEALED = seal_metadata(METADATA, KEY, CORE_BYTES, NONCE)
ENCODED = header.encode(CORE_BYTES, WRAP.encode(), SEALED)


def test_what_goes_in_comes_out() -> None:
    """A header gives back its core, wrapped key and metadata, and the core's exact bytes."""
    assert len(ENCODED) == HEADER_LENGTH
    parsed = header.parse(ENCODED)
    assert parsed.core == CORE
    assert parsed.wrap == WRAP
    assert parsed.core_bytes == CORE_BYTES
    assert parsed.sealed_metadata == SEALED
    assert open_metadata(parsed.sealed_metadata, KEY, parsed.core_bytes) == METADATA


@given(
    st.text(min_size=1, max_size=20),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))])),
)
def test_any_key_and_time_survive(key: str, create_time: datetime) -> None:
    """Every Unicode key, and every time to the microsecond, in UTC."""
    core = dataclasses.replace(CORE, key=ObjectKey(key), create_time=create_time)
    decoded = Core.decode(core.encode())
    assert decoded == core
    assert decoded.create_time.utcoffset() == timedelta(0)


UPLOAD_IDS = tuple(UploadId(str(UUID(int=number))) for number in range(MAX_REPLACED + 3))


def longest(limit: int) -> str:
    """A text of exactly ``limit`` bytes."""
    return "x" * (limit % 2) + "é" * (limit // 2)


def test_the_worst_case_fits() -> None:
    """Everything at its limit at once leaves room in the header."""
    core = Core(
        TenantId("t" * 63),
        ObjectKey("k" * MAX_KEY_SIZE),
        UPLOAD_IDS[-1],
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        longest(64),
        UPLOAD_IDS[:MAX_REPLACED],
    )
    arn = "arn:aws:kms:ap-southeast-2:111122223333:key/mrk-" + "f" * 32
    assert len(arn) <= MAX_KEY_ARN_SIZE
    wrap = Wrap(arn.ljust(MAX_KEY_ARN_SIZE, "x"), bytes(MAX_WRAPPED_KEY_SIZE))
    user = {"k": "v" * (MAX_METADATA_SIZE - 9)}
    metadata = Metadata(longest(MAX_CONTENT_TYPE_SIZE), user, longest(MAX_PRINCIPAL_SIZE), bytes(32))
    assert user_metadata_size(user) == MAX_METADATA_SIZE

    sealed = seal_metadata(metadata, KEY, core.encode(), NONCE)
    encoded = header.encode(core.encode(), wrap.encode(), sealed)
    assert len(encoded) == HEADER_LENGTH
    parsed = header.parse(encoded)
    assert (parsed.core, parsed.wrap) == (core, wrap)
    assert open_metadata(parsed.sealed_metadata, KEY, parsed.core_bytes) == metadata


def test_the_newest_of_those_replaced_are_kept() -> None:
    """An object that has followed many names the last of them."""
    core = dataclasses.replace(CORE, replaced=UPLOAD_IDS)
    assert Core.decode(core.encode()).replaced == UPLOAD_IDS[:MAX_REPLACED]


@pytest.mark.parametrize("length", [1, 15, 17, 16 * (MAX_REPLACED + 1)])
def test_what_names_no_upload_ids(length: int) -> None:
    """The header of such an object is damaged."""
    message = object_pb2.ObjectCore.FromString(CORE_BYTES)
    message.replaced_upload_ids = bytes(length)
    with pytest.raises(ObjectHeaderInvalidError):
        Core.decode(message.SerializeToString())


def test_many_small_entries_fit_too() -> None:
    """The limit on user metadata is on its encoding, so many short entries need no more room than one long one."""
    user = {f"{n:03}": "v" for n in range(MAX_METADATA_SIZE // 10)}
    assert user_metadata_size(user) <= MAX_METADATA_SIZE
    sealed = seal_metadata(dataclasses.replace(METADATA, user=user), KEY, CORE_BYTES, NONCE)
    assert open_metadata(sealed, KEY, CORE_BYTES).user == user


@pytest.mark.parametrize(
    ("field", "encode"),
    [
        ("tenant_id", lambda: dataclasses.replace(CORE, tenant_id=TenantId("t" * 64)).encode()),
        ("key", lambda: dataclasses.replace(CORE, key=ObjectKey("é" * 451)).encode()),
        ("upload_id", lambda: dataclasses.replace(CORE, upload_id=UploadId("u" * 37)).encode()),
        ("deployment_id", lambda: dataclasses.replace(CORE, deployment_id="d" * 65).encode()),
        ("kms_key_arn", lambda: Wrap("a" * 129, b"w").encode()),
        ("wrapped_key", lambda: Wrap("a", bytes(1025)).encode()),
        ("content_type", lambda: seal(content_type="c" * 256)),
        ("metadata", lambda: seal(user={"k": "v" * (MAX_METADATA_SIZE - 8)})),
        ("principal", lambda: seal(principal="p" * 257)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: str, encode: Callable[[], bytes]) -> None:
    """A field over its limit is named before anything is stored."""
    with pytest.raises(RequestInvalidError) as error:
        encode()
    assert [violation.subject for violation in error.value.violations] == [field]


def seal(**changes: Any) -> bytes:
    return seal_metadata(dataclasses.replace(METADATA, **changes), KEY, CORE_BYTES, NONCE)


def test_a_put_header_hash_is_sha256() -> None:
    """Metadata with another hash is a mistake of the service, not of the request."""
    with pytest.raises(ValueError, match="32 bytes"):
        seal(put_header_hash=b"short")


def with_prefix(
    *, magic: bytes = b"KEYSTOW\0", version: int = 1, suite: int = 1, lengths: tuple[int, int, int]
) -> bytes:
    return struct.pack(">8sHHHHH", magic, version, suite, *lengths) + ENCODED[18:]


LENGTHS = len(CORE_BYTES), len(WRAP.encode()), len(SEALED)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        ENCODED[:-1],
        ENCODED + b"\0",
        bytes(HEADER_LENGTH),
        with_prefix(magic=b"KEYSTOW\1", lengths=LENGTHS),
        with_prefix(magic=b"keystow\0", lengths=LENGTHS),
        with_prefix(lengths=(65535, 65535, 65535)),
        with_prefix(lengths=(LENGTHS[0], LENGTHS[1], HEADER_LENGTH - 18 - sum(LENGTHS[:2]) + 1)),
        with_prefix(lengths=(0, 0, 0)),
        with_prefix(lengths=(LENGTHS[0] - 1, LENGTHS[1] + 1, LENGTHS[2])),
        with_prefix(lengths=(LENGTHS[0] + 1, LENGTHS[1] - 1, LENGTHS[2])),
        with_prefix(lengths=(LENGTHS[0], LENGTHS[1] - 1, LENGTHS[2] + 1)),
        with_prefix(lengths=(LENGTHS[0], LENGTHS[1], LENGTHS[2] - 1)),
        ENCODED[:-1] + b"\1",
    ],
)
def test_damaged_headers_are_refused_by_name(damaged: bytes) -> None:
    """Wrong length, magic or lengths, and padding that is not zero."""
    with pytest.raises(ObjectHeaderInvalidError):
        header.parse(damaged)


@pytest.mark.parametrize(("version", "suite"), [(0, 1), (2, 1), (1, 0), (1, 2), (65535, 65535)])
def test_other_formats_are_told_apart_from_damage(version: int, suite: int) -> None:
    """A version or suite of another keystow says so, whatever follows."""
    with pytest.raises(ObjectFormatUnsupportedError):
        header.parse(with_prefix(version=version, suite=suite, lengths=(65535, 65535, 65535)))


def core_without(field: str) -> bytes:
    message = object_pb2.ObjectCore.FromString(CORE_BYTES)
    message.ClearField(field)  # type: ignore[arg-type]  # any field, by name
    return message.SerializeToString()


def wrap_without(field: str) -> bytes:
    message = object_pb2.WrappedDataKey.FromString(WRAP.encode())
    message.ClearField(field)  # type: ignore[arg-type]  # any field, by name
    return message.SerializeToString()


def core_at(seconds: int, nanos: int) -> bytes:
    message = object_pb2.ObjectCore.FromString(CORE_BYTES)
    message.create_time.seconds, message.create_time.nanos = seconds, nanos
    return message.SerializeToString()


@pytest.mark.parametrize(
    "core",
    [
        *(core_without(field) for field in ("tenant_id", "key", "upload_id", "create_time", "deployment_id")),
        core_at(10**15, 0),
        core_at(0, 2 * 10**9),
        core_at(0, -1),
        CORE_BYTES[:-1],
        CORE_BYTES + b"\x32\x01x",  # an unknown field
        CORE_BYTES + b"\x0a\x04acme",  # a field twice
        CORE_BYTES.replace(b"acme", b"ac\xffe"),  # invalid UTF-8
        b"\xff" * 20,
        b"",
    ],
)
def test_cores_that_are_none(core: bytes) -> None:
    """A core that is unreadable, incomplete, or more than a core."""
    with pytest.raises(ObjectHeaderInvalidError):
        header.parse(header.encode(core, WRAP.encode(), SEALED))


@pytest.mark.parametrize(
    "wrap",
    [
        *(wrap_without(field) for field in ("kms_key_arn", "ciphertext")),
        object_pb2.WrappedDataKey(kms_key_arn=WRAP.key_arn, ciphertext=bytes(1025)).SerializeToString(),
        WRAP.encode()[:-1],
        WRAP.encode() + b"\x1a\x01x",
        b"\xff" * 20,
        b"",
    ],
)
def test_wraps_that_are_none(wrap: bytes) -> None:
    """A wrapped key that is unreadable, incomplete, or more than that."""
    with pytest.raises(ObjectHeaderInvalidError):
        header.parse(header.encode(CORE_BYTES, wrap, SEALED))
