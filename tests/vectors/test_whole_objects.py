"""Frozen whole objects: what version 1 stores, byte for byte, now and for good."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import FRONT_LENGTH, V1, PartPlan
from keystow_service.envelope.reader import SegmentOpener, read_front
from keystow_service.envelope.sealing import Metadata
from keystow_service.envelope.tally import Tally
from keystow_service.envelope.writer import begin_object
from keystow_service.model import DataKey, KeyArn, ObjectKey, TenantId, UploadId
from vectors.independent_writer import plaintext_of, randomness_of, write

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("objects.json").read_text())

every_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def core_of(vector: Mapping[str, Any]) -> Core:
    return Core(
        TenantId(vector["tenant_id"]),
        ObjectKey(vector["key"]),
        UploadId(vector["upload_id"]),
        datetime.fromisoformat(vector["create_time"]),
        vector["deployment_id"],
    )


def metadata_of(vector: Mapping[str, Any]) -> Metadata:
    return Metadata(
        vector["content_type"], vector["metadata"], vector["principal"], bytes.fromhex(vector["put_header_hash"])
    )


def check_frozen(stored: bytes, vector: Mapping[str, Any]) -> None:
    """The whole object where it is frozen whole, its hash in any case."""
    assert len(stored) == vector["stored_size"]
    if "stored" in vector:
        assert stored.hex() == vector["stored"]
    assert hashlib.sha256(stored).hexdigest() == vector["stored_sha256"]


@every_vector
def test_the_independent_writer_gives_the_frozen_bytes(vector: dict[str, Any], checked: Counter[str]) -> None:
    """The second writer still writes what it wrote when the format was frozen."""
    check_frozen(write(vector), vector)
    checked["frozen"] += 1


@every_vector
@pytest.mark.parametrize("declared", [True, False], ids=["size declared", "size unknown"])
def test_the_writer_gives_the_frozen_bytes(vector: dict[str, Any], checked: Counter[str], *, declared: bool) -> None:
    """The service's writer, with the vector's randomness, writes exactly what the independent writer does."""
    plaintext = plaintext_of(vector)
    arn = vector["key_arn"]
    writer = begin_object(
        core=core_of(vector),
        metadata=metadata_of(vector),
        data_key=DataKey(bytes.fromhex(vector["data_key"]), bytes.fromhex(vector["wrapped_key"])),
        key_arn=KeyArn.parse(arn),
        plan=PartPlan(V1, len(plaintext) if declared else None),
        random=io.BytesIO(randomness_of(vector, 44 + 12 * V1.segments(len(plaintext)) + 12)).read,
    )
    parts = []
    start = 0
    while start < len(plaintext):
        if (part := writer.take_full_part()) is not None:
            parts.append(part)
        start += writer.feed(plaintext, start)
    parts.append(writer.finish(hashlib.sha256(plaintext).digest() if vector["sha256_present"] else None))
    check_frozen(b"".join(parts), vector)
    assert len(parts) == (2 if len(plaintext) > 8 << 20 else 1)
    checked["written"] += 1


@every_vector
def test_the_reader_opens_the_frozen_bytes(vector: dict[str, Any], checked: Counter[str]) -> None:
    """The service's reader gets back all that went into the independent writer."""
    stored = write(vector)
    plaintext = plaintext_of(vector)
    core = core_of(vector)
    front = read_front(stored[:FRONT_LENGTH], core.tenant_id, core.key)
    assert front.header.core == core
    assert front.header.wrap.key_arn == vector["key_arn"]
    assert front.header.wrap.wrapped_key.hex() == vector["wrapped_key"]

    size = V1.plaintext_size(len(stored))
    assert size == len(plaintext)
    opener = SegmentOpener(front, bytes.fromhex(vector["data_key"]), size)
    assert opener.metadata() == metadata_of(vector)
    footer = opener.footer(stored[V1.footer_offset(size) :])
    assert footer.sha256 == (hashlib.sha256(plaintext).digest() if vector["sha256_present"] else None)

    tally = Tally()
    opened = []
    for index in range(V1.segments(size)):
        begin = V1.stored_offset(index)
        sealed = stored[begin : begin + V1.sealed_length(size, index)]
        opened.append(opener.segment(index, sealed))
        tally = tally.after(len(opened[-1]), google_crc32c.value(opened[-1]), sealed[-16:])
    assert b"".join(opened) == plaintext
    opener.check_whole(tally, footer)
    checked["read"] += 1
