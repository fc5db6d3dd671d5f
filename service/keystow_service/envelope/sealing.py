"""The small sealed pieces of an object: its metadata, in the header, and its footer.

Both are ``nonce 12 | AES-256-GCM ciphertext | tag 16`` under keys of derive.py, with the core as AAD. Promise: what
these functions open is what was sealed for this very object, or they refuse.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from keystow.storage.v1 import object_pb2
from keystow_service.envelope.header import require_size
from keystow_service.envelope.layout import RESTORE
from keystow_service.errors import ObjectFormatUnsupportedError, ObjectTamperedError
from keystow_service.model import MAX_CONTENT_TYPE_SIZE, MAX_METADATA_SIZE

NONCE_LENGTH = 12
MAX_PRINCIPAL_SIZE = 256  # bytes of UTF-8

_HASH_LENGTH = 32
_HAS_SHA256 = 1
_FOOTER = struct.Struct(">QII32s32sI")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What only the tenant's key makes readable beside the content."""

    content_type: str
    user: Mapping[str, str] = field(repr=False)
    principal: str  # the caller that wrote the object
    put_header_hash: bytes  # 32 bytes; tells a repeated Put from a different one under the same upload_id

    def __post_init__(self) -> None:
        if len(self.put_header_hash) != _HASH_LENGTH:
            raise ValueError("the hash of a PutHeader has 32 bytes")


@dataclass(frozen=True, slots=True)
class Footer:
    """What the writer knew once it had seen the last byte."""

    size: int
    crc32c: int  # of the whole plaintext
    chain: bytes  # tally.py
    sha256: bytes | None  # of the whole plaintext, where the server verified it


def user_metadata_size(user: Mapping[str, str]) -> int:
    """Bytes that user metadata takes encoded: what MAX_METADATA_SIZE limits."""
    return object_pb2.ObjectMetadata(metadata=user).ByteSize()


def seal_metadata(metadata: Metadata, key: bytes, core: bytes, nonce: bytes) -> bytes:
    """``nonce`` is NONCE_LENGTH fresh random bytes. Raises RequestInvalidError naming the field that is too long."""
    require_size("content_type", len(metadata.content_type.encode()), MAX_CONTENT_TYPE_SIZE)
    require_size("metadata", user_metadata_size(metadata.user), MAX_METADATA_SIZE)
    require_size("principal", len(metadata.principal.encode()), MAX_PRINCIPAL_SIZE)
    message = object_pb2.ObjectMetadata(
        content_type=metadata.content_type,
        metadata=metadata.user,
        principal=metadata.principal,
        put_header_hash=metadata.put_header_hash,
    )
    return nonce + AESGCM(key).encrypt(nonce, message.SerializeToString(deterministic=True), core)


def open_metadata(sealed: bytes, key: bytes, core: bytes) -> Metadata:
    """Raises ObjectTamperedError."""
    try:
        message = object_pb2.ObjectMetadata.FromString(_open("metadata", sealed, key, core))
        return Metadata(message.content_type, dict(message.metadata), message.principal, message.put_header_hash)
    except (DecodeError, ValueError):
        raise ObjectTamperedError(f"The stored object's metadata is authentic, but unreadable. {RESTORE}") from None


def seal_footer(footer: Footer, key: bytes, core: bytes, nonce: bytes) -> bytes:
    """FOOTER_LENGTH bytes. ``nonce`` is NONCE_LENGTH fresh random bytes."""
    flags = 0 if footer.sha256 is None else _HAS_SHA256
    plaintext = _FOOTER.pack(footer.size, footer.crc32c, flags, footer.sha256 or bytes(_HASH_LENGTH), footer.chain, 0)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, core)


def open_footer(sealed: bytes, key: bytes, core: bytes) -> Footer:
    """Raises ObjectTamperedError; ObjectFormatUnsupportedError for flags of another keystow."""
    plaintext = _open("footer", sealed, key, core)
    size, crc32c, flags, sha256, chain, reserved = _FOOTER.unpack(plaintext)
    if flags & ~_HAS_SHA256 or reserved:
        raise ObjectFormatUnsupportedError(
            "The stored object's footer holds something that this server does not know. Read it with the release that "
            "wrote it or a newer one."
        )
    return Footer(size, crc32c, chain, sha256 if flags & _HAS_SHA256 else None)


def _open(what: str, sealed: bytes, key: bytes, core: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:], core)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise ObjectTamperedError(f"The stored object's {what} does not verify: it was altered. {RESTORE}") from None
