"""Writes and reads whole stored objects as Put and Get do, with a stand-in for KMS, so that tests can damage them."""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, Layout, PartPlan
from keystow_service.envelope.reader import SegmentOpener, read_front
from keystow_service.envelope.sealing import Metadata
from keystow_service.envelope.tally import Tally
from keystow_service.envelope.writer import PartWriter, begin_object
from keystow_service.errors import WrappedKeyInvalidError
from keystow_service.model import DataKey, KeyArn, ObjectKey, TenantId, UploadId

# Many segments in few bytes; everything else is as in production.
SMALL = Layout(segment=64)

ARN = KeyArn.parse("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
CORE = Core(
    TenantId("acme"),
    ObjectKey("backups/2026/a.json"),
    UploadId("0b0e8a4e-7a39-4d0a-9c1c-3f3c5e6f7a8b"),
    datetime(2026, 11, 23, 22, 21, 7, 123456, UTC),
    "prod-eu-1",
)
METADATA = Metadata("application/json", {"zone": "b", "account": "Ärzte"}, "anonymous", bytes(range(32)))

_KMS_KEY = bytes(range(32))


def wrap(data_key: bytes, nonce: bytes = bytes(12)) -> bytes:
    """What KMS would do, as far as the envelope can tell."""
    return nonce + AESGCM(_KMS_KEY).encrypt(nonce, data_key, None)


def unwrap(wrapped: bytes) -> bytes:
    """Raises WrappedKeyInvalidError for anything that wrap did not make, as KMS does."""
    try:
        return AESGCM(_KMS_KEY).decrypt(wrapped[:12], wrapped[12:], None)
    except (InvalidTag, ValueError):
        raise WrappedKeyInvalidError("not made by this key") from None


DATA_KEY = DataKey(bytes.fromhex("42" * 32), wrap(bytes.fromhex("42" * 32)))


def begin(
    size: int | None = None,
    *,
    core: Core = CORE,
    metadata: Metadata = METADATA,
    layout: Layout = SMALL,
    plan: PartPlan | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> PartWriter:
    """A writer for one object."""
    plan = plan or PartPlan(layout, size)
    return begin_object(core=core, metadata=metadata, data_key=DATA_KEY, key_arn=ARN, plan=plan, random=random)


def feed_all(writer: PartWriter, chunks: Sequence[bytes]) -> list[bytearray]:
    """Feed chunks as Put does; the full parts on the way."""
    parts = []
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            if (part := writer.take_full_part()) is not None:
                parts.append(part)
            start += writer.feed(chunk, start, crc32c=google_crc32c.value(chunk))
    return parts


def write_parts(
    chunks: Sequence[bytes], size: int | None = None, *, core: Core = CORE, layout: Layout = SMALL
) -> list[bytearray]:
    """The parts of a whole object."""
    writer = begin(size, core=core, layout=layout)
    return [*feed_all(writer, chunks), writer.finish(None)]


def write(plaintext: bytes, *, core: Core = CORE, layout: Layout = SMALL) -> bytes:
    """A whole stored object."""
    return b"".join(write_parts([plaintext], len(plaintext), core=core, layout=layout))


def open_object(stored: bytes, *, core: Core = CORE, layout: Layout = SMALL) -> SegmentOpener:
    """Everything Get does before the first segment."""
    size = layout.plaintext_size(len(stored))
    front = read_front(stored[:FRONT_LENGTH], core.tenant_id, core.key)
    return SegmentOpener(front, unwrap(front.header.wrap.wrapped_key), size, layout)


def sealed_segment(stored: bytes, index: int, size: int, layout: Layout = SMALL) -> bytes:
    """The stored bytes of one segment."""
    begin = layout.stored_offset(index)
    return stored[begin : begin + layout.sealed_length(size, index)]


def read(stored: bytes, *, core: Core = CORE, layout: Layout = SMALL) -> tuple[bytes, Metadata]:
    """A whole read: everything verified, the chain compared."""
    opener = open_object(stored, core=core, layout=layout)
    metadata = opener.metadata()
    footer = opener.footer(stored[-FOOTER_LENGTH:])
    tally = Tally()
    opened = []
    for index in range(layout.segments(opener.size)):
        sealed = sealed_segment(stored, index, opener.size, layout)
        plaintext = opener.segment(index, sealed)
        opened.append(plaintext)
        tally = tally.after(len(plaintext), google_crc32c.value(plaintext), sealed[-16:])
    opener.check_whole(tally, footer)
    return b"".join(opened), metadata


def read_range(stored: bytes, offset: int, length: int, *, layout: Layout = SMALL) -> bytes:
    """A ranged read inside the object, of at least one byte: the segments that hold it, and nothing else."""
    opener = open_object(stored, layout=layout)
    first, last = layout.segment_at(offset), layout.segment_at(offset + length - 1)
    indexes = range(first, last + 1)
    run = b"".join(opener.segment(index, sealed_segment(stored, index, opener.size, layout)) for index in indexes)
    skip = offset - first * layout.segment
    return run[skip : skip + length]
