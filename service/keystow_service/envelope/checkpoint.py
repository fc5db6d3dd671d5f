"""Checkpoint tokens: where an interrupted export goes on, in the caller's keeping.

    version 1 | scope 32 | salt 32 | length of the wrapped data key u16 | wrapped data key
    nonce 12 | AES-256-GCM ciphertext of the ExportPosition | tag 16

The first line is clear, and the AAD of the second. The key is derived (derive.py) from the data key of an object that
the export has opened, so a token is made without asking KMS for anything new, every server process can open it, and
none can while the tenant's KMS key refuses: a revoked key cannot continue an export either. Promise: what opens is what
this service sealed for the very export that the scope names.
"""

import struct
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from keystow.storage.v1 import export_pb2
from keystow_service.envelope import derive
from keystow_service.envelope.header import MAX_WRAPPED_KEY_SIZE
from keystow_service.envelope.writer import Random
from keystow_service.errors import CheckpointTokenInvalidError
from keystow_service.model import DataKey

SCOPE_LENGTH = 32
SALT_LENGTH = 32
NONCE_LENGTH = 12

_VERSION = 1
_PREFIX = struct.Struct(f">B{SCOPE_LENGTH}s{SALT_LENGTH}sH")


@dataclass(frozen=True, slots=True)
class ExportPosition:
    """Between two objects of an export, after the first of them. Sizes in bytes."""

    last_key: str = ""
    open_lengths: tuple[int, ...] = ()  # objects/export/member_names.py
    archive_size: int = 0
    manifest_count: int = 0
    object_count: int = 0
    failed_count: int = 0
    total_size: int = 0


def seal(position: ExportPosition, scope: bytes, data_key: DataKey, random: Random) -> bytes:
    """The token. ``scope`` is SCOPE_LENGTH bytes that only this export has; ``random`` gives a salt, then a nonce."""
    salt = random(SALT_LENGTH)
    nonce = random(NONCE_LENGTH)
    clear = _PREFIX.pack(_VERSION, scope, salt, len(data_key.wrapped)) + data_key.wrapped
    message = export_pb2.ExportPosition(
        last_key=position.last_key,
        open_lengths=position.open_lengths,
        archive_size=position.archive_size,
        manifest_count=position.manifest_count,
        object_count=position.object_count,
        failed_count=position.failed_count,
        total_size=position.total_size,
    )
    key = derive.checkpoint_key(data_key.plaintext, salt)
    return clear + nonce + AESGCM(key).encrypt(nonce, message.SerializeToString(deterministic=True), clear)


@dataclass(frozen=True, slots=True)
class SealedCheckpoint:
    """A token taken apart. Nothing of it is true before ``open``."""

    wrapped_key: bytes = field(repr=False)
    _clear: bytes = field(repr=False)
    _salt: bytes = field(repr=False)
    _sealed: bytes = field(repr=False)

    @classmethod
    def parse(cls, token: bytes, scope: bytes) -> Self:
        """Raises CheckpointTokenInvalidError for what is no token, or one of another scope."""
        if len(token) < _PREFIX.size:
            raise invalid()
        version, told_scope, salt, length = _PREFIX.unpack_from(token)
        end = _PREFIX.size + length
        if version != _VERSION or told_scope != scope or not 0 < length <= MAX_WRAPPED_KEY_SIZE or len(token) <= end:
            raise invalid()
        return cls(token[_PREFIX.size : end], token[:end], salt, token[end:])

    def open(self, data_key: bytes) -> ExportPosition:
        """Raises CheckpointTokenInvalidError."""
        nonce, ciphertext = self._sealed[:NONCE_LENGTH], self._sealed[NONCE_LENGTH:]
        try:
            cipher = AESGCM(derive.checkpoint_key(data_key, self._salt))
            message = export_pb2.ExportPosition.FromString(cipher.decrypt(nonce, ciphertext, self._clear))
        except (InvalidTag, ValueError, DecodeError):  # ValueError: too short to hold a nonce
            raise invalid() from None
        return ExportPosition(
            last_key=message.last_key,
            open_lengths=tuple(message.open_lengths),
            archive_size=message.archive_size,
            manifest_count=message.manifest_count,
            object_count=message.object_count,
            failed_count=message.failed_count,
            total_size=message.total_size,
        )


def invalid() -> CheckpointTokenInvalidError:
    """For anything that this export did not give out."""
    return CheckpointTokenInvalidError(
        "The checkpoint token is unreadable, or belongs to an export of another tenant, selection, caller, format or "
        "error policy. Repeat the request that it was given for, or export from the beginning."
    )
