r"""The 4,096-byte header: what a stored object says of itself in clear, and its sealed metadata.

    "KEYSTOW\0" | version u16 | suite u16 | core length u16 | wrap length u16 | metadata length u16
    core | wrap | metadata | zeros

Parsing is strict: whatever this version would not write is refused by name. That alone makes nothing in a header true;
opening the object does (reader.py). Protobuf ends here and in sealing.py: the service sees the dataclasses.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from google.protobuf.message import DecodeError, Message

from keystow.storage.v1 import object_pb2
from keystow_service.envelope.layout import HEADER_LENGTH, RESTORE
from keystow_service.errors import (
    ObjectFormatUnsupportedError,
    ObjectHeaderInvalidError,
    RequestInvalidError,
    Violation,
)
from keystow_service.model import MAX_KEY_SIZE, ObjectKey, TenantId, UploadId

MAGIC = b"KEYSTOW\0"
VERSION = 1
SUITE = 1  # FLOE, AES-256-GCM, HKDF-SHA-384, ENC_SEG_LEN 1,048,608

# Bytes of UTF-8. With these and sealing.py's every header fits; a test computes the worst case.
MAX_TENANT_ID_SIZE = 63
MAX_UPLOAD_ID_SIZE = 36
MAX_DEPLOYMENT_ID_SIZE = 64
MAX_KEY_ARN_SIZE = 128
MAX_WRAPPED_KEY_SIZE = 1024
MAX_REPLACED = 12  # upload ids of those that stood at the key before

_UUID_LENGTH = 16

_PREFIX = struct.Struct(">8sHHHHH")


def require_size(field_name: str, size: int, limit: int) -> None:
    """Raises RequestInvalidError for a field of more than ``limit`` bytes."""
    if size > limit:
        description = f"has {size} bytes; at most {limit} fit"
        raise RequestInvalidError(f"{field_name} {description}.", violations=[Violation(field_name, description)])


@dataclass(frozen=True, slots=True)
class Core:
    """Who the object is. Fixed at the Put, bound into everything that is sealed."""

    tenant_id: TenantId
    key: ObjectKey
    upload_id: UploadId
    create_time: datetime  # aware; microseconds survive
    deployment_id: str
    replaced: tuple[UploadId, ...] = ()  # UUIDs; whose objects stood at the key before, newest first

    def encode(self) -> bytes:
        """Raises RequestInvalidError naming the field that is too long."""
        require_size("tenant_id", len(self.tenant_id.encode()), MAX_TENANT_ID_SIZE)
        require_size("key", len(self.key.encode()), MAX_KEY_SIZE)
        require_size("upload_id", len(self.upload_id.encode()), MAX_UPLOAD_ID_SIZE)
        require_size("deployment_id", len(self.deployment_id.encode()), MAX_DEPLOYMENT_ID_SIZE)
        message = object_pb2.ObjectCore(
            tenant_id=self.tenant_id,
            key=self.key,
            upload_id=self.upload_id,
            deployment_id=self.deployment_id,
            replaced_upload_ids=b"".join(UUID(upload_id).bytes for upload_id in self.replaced[:MAX_REPLACED]),
        )
        message.create_time.FromDatetime(self.create_time)
        return message.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Raises ObjectHeaderInvalidError."""
        try:
            message = object_pb2.ObjectCore.FromString(encoded)
            create_time = message.create_time.ToDatetime(tzinfo=UTC)
        except (DecodeError, ValueError):
            raise _invalid("its core is unreadable") from None
        _require_nothing_else(message, encoded)
        required = (message.tenant_id, message.key, message.upload_id, message.deployment_id)
        if not all(required) or not message.HasField("create_time"):
            raise _invalid("its core is incomplete")
        count, rest = divmod(len(message.replaced_upload_ids), _UUID_LENGTH)
        if rest or count > MAX_REPLACED or not _is_uuid(message.upload_id):
            raise _invalid("its core names no upload ids")
        return cls(
            TenantId(message.tenant_id),
            ObjectKey(message.key),
            UploadId(message.upload_id),
            create_time,
            message.deployment_id,
            tuple(_upload_ids(message.replaced_upload_ids)),
        )


@dataclass(frozen=True, slots=True)
class Wrap:
    """The data key as KMS wrapped it. Replaceable without sealing anything again, and so bound by nothing."""

    key_arn: str  # a hint for disaster recovery: unwrapping uses the registry's
    wrapped_key: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Raises RequestInvalidError naming the field that is too long."""
        require_size("kms_key_arn", len(self.key_arn.encode()), MAX_KEY_ARN_SIZE)
        require_size("wrapped_key", len(self.wrapped_key), MAX_WRAPPED_KEY_SIZE)
        message = object_pb2.WrappedDataKey(kms_key_arn=self.key_arn, ciphertext=self.wrapped_key)
        return message.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Raises ObjectHeaderInvalidError."""
        try:
            message = object_pb2.WrappedDataKey.FromString(encoded)
        except DecodeError:
            raise _invalid("its wrapped data key is unreadable") from None
        _require_nothing_else(message, encoded)
        if not message.kms_key_arn or not message.ciphertext:
            raise _invalid("its wrapped data key is incomplete")
        if len(message.ciphertext) > MAX_WRAPPED_KEY_SIZE:
            raise _invalid("its wrapped data key is too long")
        return cls(message.kms_key_arn, message.ciphertext)


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header. Nothing in it is authenticated yet."""

    core: Core
    wrap: Wrap
    core_bytes: bytes = field(repr=False)  # exactly as stored: they are the AAD
    sealed_metadata: bytes = field(repr=False)


def encode(core: bytes, wrap: bytes, sealed_metadata: bytes) -> bytes:
    """The header, HEADER_LENGTH bytes. The limits on each field see to it that the three fit."""
    prefix = _PREFIX.pack(MAGIC, VERSION, SUITE, len(core), len(wrap), len(sealed_metadata))
    return b"".join((prefix, core, wrap, sealed_metadata)).ljust(HEADER_LENGTH, b"\0")


def parse(header: bytes) -> Header:
    """Take apart the first HEADER_LENGTH bytes of a stored object.

    Raises ObjectHeaderInvalidError; ObjectFormatUnsupportedError for a version or suite of another keystow.
    """
    if len(header) != HEADER_LENGTH or not header.startswith(MAGIC):
        raise _invalid("it does not begin with keystow's magic")
    _, version, suite, core_length, wrap_length, metadata_length = _PREFIX.unpack_from(header)
    if (version, suite) != (VERSION, SUITE):
        raise ObjectFormatUnsupportedError(
            f"The stored object has format version {version}, suite {suite}; this server knows version {VERSION}, "
            f"suite {SUITE}. Read it with the release that wrote it or a newer one; if there is none, the header is "
            f"damaged. {RESTORE}"
        )
    core_end = _PREFIX.size + core_length
    wrap_end = core_end + wrap_length
    metadata_end = wrap_end + metadata_length
    if metadata_end > HEADER_LENGTH:
        raise _invalid("its lengths do not fit")
    if any(header[metadata_end:]):
        raise _invalid("its padding is not zero")
    core_bytes = header[_PREFIX.size : core_end]
    return Header(
        core=Core.decode(core_bytes),
        wrap=Wrap.decode(header[core_end:wrap_end]),
        core_bytes=core_bytes,
        sealed_metadata=header[wrap_end:metadata_end],
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _upload_ids(packed: bytes) -> Iterator[UploadId]:
    for start in range(0, len(packed), _UUID_LENGTH):
        yield UploadId(str(UUID(bytes=packed[start : start + _UUID_LENGTH])))


def _require_nothing_else(message: Message, encoded: bytes) -> None:
    """No unknown, repeated or padded fields. Not a comparison of bytes: serializers may change, objects stay."""
    message.DiscardUnknownFields()
    if message.ByteSize() != len(encoded):
        raise _invalid("it holds more than its fields")


def _invalid(why: str) -> ObjectHeaderInvalidError:
    return ObjectHeaderInvalidError(f"The stored object's header is damaged: {why}. {RESTORE}")
