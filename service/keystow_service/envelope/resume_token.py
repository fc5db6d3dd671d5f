"""Resume tokens: all that another process needs to go on with an interrupted upload, kept by the client.

    "KSR1" | header length u16 | header without padding | FLOE header 74 | nonce 12 | sealed ResumeState | tag 16

The clear part is the object's own front. The state is sealed under a key derived from the data key, with the whole
clear part as AAD: a token opens only for its object, and only while the tenant's KMS key unwraps the data key, so that
a revoked key cannot be resumed either.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from keystow.storage.v1 import resume_pb2
from keystow_service.envelope import derive, floe
from keystow_service.envelope.layout import HEADER_LENGTH, V1
from keystow_service.envelope.part_chain import PartChain
from keystow_service.envelope.reader import Front, read_front
from keystow_service.envelope.sealing import NONCE_LENGTH, Metadata, open_metadata
from keystow_service.envelope.tally import Tally
from keystow_service.errors import KeystowError, ResumeTokenInvalidError
from keystow_service.model import ObjectKey, TenantId

MAX_LENGTH = 8192  # bytes; no token is longer

_START = struct.Struct(">4sH")
_MAGIC = b"KSR1"


@dataclass(frozen=True, slots=True)
class ResumeState:
    """Where an upload stands. Sizes in bytes."""

    store_upload_id: str  # how the object store names the upload
    size: int | None  # declared
    write_mode: str
    replaces: str | None  # ETag of what the commit replaces
    tally: Tally = field(default_factory=Tally)  # of the plaintext in durable parts
    parts: PartChain = field(default_factory=PartChain)


class TokenSealer:
    """Makes the tokens of one upload, one after the other."""

    def __init__(self, front: bytes, data_key: bytes, random: Callable[[int], bytes]) -> None:
        """``front`` is the object's, FRONT_LENGTH bytes; ``random`` as in writer.py."""
        header, floe_header = front[:HEADER_LENGTH].rstrip(b"\0"), front[HEADER_LENGTH:]
        self._clear = _START.pack(_MAGIC, len(header)) + header + floe_header
        self._cipher = AESGCM(derive.resume_token_key(data_key, floe.iv_of(V1.floe_parameters, floe_header)))
        self._random = random

    def seal(self, state: ResumeState) -> bytes:
        """The token."""
        message = resume_pb2.ResumeState(
            store_upload_id=state.store_upload_id,
            size=state.size,
            write_mode=state.write_mode,
            replaces=state.replaces,
            persisted_size=state.tally.size,
            crc32c=state.tally.crc32c,
            segment_chain=state.tally.chain,
            parts=state.parts.count,
            part_chain=state.parts.digest,
        )
        nonce = self._random(NONCE_LENGTH)
        return self._clear + nonce + self._cipher.encrypt(nonce, message.SerializeToString(), self._clear)


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A token, taken apart. Nothing in it is authenticated before ``open``."""

    front: Front
    stored_front: bytes = field(repr=False)  # as it is, or will be, at the object's beginning
    _clear: bytes = field(repr=False)
    _sealed: bytes = field(repr=False)

    def open(self, data_key: bytes) -> tuple[Metadata, ResumeState]:
        """Raises ResumeTokenInvalidError unless front, state and data key belong together."""
        core = self.front.header.core_bytes
        try:
            decryptor = floe.Decryptor(V1.floe_parameters, data_key, derive.floe_aad(core), self.front.floe_header)
            key = derive.resume_token_key(data_key, decryptor.iv)
            nonce, sealed = self._sealed[:NONCE_LENGTH], self._sealed[NONCE_LENGTH:]
            message = resume_pb2.ResumeState.FromString(AESGCM(key).decrypt(nonce, sealed, self._clear))
            metadata_key = derive.metadata_key(data_key, decryptor.iv)
            metadata = open_metadata(self.front.header.sealed_metadata, metadata_key, core)
        except (floe.FloeError, InvalidTag, DecodeError, ValueError, KeystowError):
            raise invalid() from None
        state = ResumeState(
            store_upload_id=message.store_upload_id,
            size=message.size if message.HasField("size") else None,
            write_mode=message.write_mode,
            replaces=message.replaces if message.HasField("replaces") else None,
            tally=Tally(message.persisted_size, message.crc32c, message.segment_chain),
            parts=PartChain(message.parts, message.part_chain),
        )
        return metadata, state


def parse(token: bytes, tenant_id: TenantId, key: ObjectKey) -> ResumeToken:
    """Take a token apart. Raises ResumeTokenInvalidError for what is none, or another object's."""
    if len(token) < _START.size or len(token) > MAX_LENGTH:
        raise invalid()
    magic, header_length = _START.unpack_from(token)
    header_end = _START.size + header_length
    clear_end = header_end + floe.HEADER_LENGTH
    if magic != _MAGIC or header_length > HEADER_LENGTH or len(token) < clear_end:
        raise invalid()
    stored_front = token[_START.size : header_end].ljust(HEADER_LENGTH, b"\0") + token[header_end:clear_end]
    try:
        front = read_front(stored_front, tenant_id, key)
    except KeystowError:
        raise invalid() from None
    return ResumeToken(front, stored_front, token[:clear_end], token[clear_end:])


def invalid() -> ResumeTokenInvalidError:
    """What is told of every token that cannot be used, whatever is wrong with it."""
    return ResumeTokenInvalidError(
        "The resume token is not one of this upload and this caller. Send the last one that keystow gave for it, "
        "unchanged, or put the object again."
    )
