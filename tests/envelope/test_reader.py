"""Nothing leaves that was not verified: damage of every kind, and ranges (envelope/reader.py)."""

import dataclasses
import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from envelope.stored import (
    ARN,
    CORE,
    DATA_KEY,
    METADATA,
    SMALL,
    begin,
    feed_all,
    open_object,
    read,
    read_range,
    sealed_segment,
    write,
)
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, HEADER_LENGTH, V1
from keystow_service.envelope.reader import SegmentOpener, read_front
from keystow_service.envelope.sealing import Footer, open_footer, open_metadata
from keystow_service.envelope.tally import Tally
from keystow_service.errors import (
    KeystowError,
    ObjectFormatUnsupportedError,
    ObjectHeaderInvalidError,
    ObjectTamperedError,
    ObjectTruncatedError,
    WrappedKeyInvalidError,
)
from keystow_service.model import ObjectKey, TenantId

PLAINTEXT = hashlib.shake_256(b"reader").digest(64 * 3 + 20)
STORED = write(PLAINTEXT)
SIZE = len(PLAINTEXT)


def outcome(stored: bytes) -> type[KeystowError] | None:
    """The error a whole read ends with; without one it must have given back what was written."""
    try:
        assert read(stored) == (PLAINTEXT, METADATA)
    except KeystowError as error:
        return type(error)
    return None


# --- Single bits ------------------------------------------------------------------------------------------------------

CORE_START = 18
WRAP_START = CORE_START + len(CORE.encode())
METADATA_START = STORED.index(DATA_KEY.wrapped) + len(DATA_KEY.wrapped)
PADDING_START = METADATA_START + int.from_bytes(STORED[16:18], "big")
ARN_START = STORED.index(ARN.text.encode())

# The wrapped key in the header is the only thing that no key authenticates: KMS does. Beside it stands the hint.
HINT = range(ARN_START, ARN_START + len(ARN.text))

REGIONS: dict[str, tuple[range, set[type[KeystowError]]]] = {
    "magic": (range(8), {ObjectHeaderInvalidError}),
    "version and suite": (range(8, 12), {ObjectFormatUnsupportedError}),
    "lengths": (range(12, 18), {ObjectHeaderInvalidError, ObjectTamperedError, WrappedKeyInvalidError}),
    "core": (range(CORE_START, WRAP_START), {ObjectHeaderInvalidError, ObjectTamperedError}),
    "wrap": (range(WRAP_START, METADATA_START), {ObjectHeaderInvalidError, WrappedKeyInvalidError}),
    "metadata": (range(METADATA_START, PADDING_START), {ObjectTamperedError}),
    "padding": (range(PADDING_START, HEADER_LENGTH), {ObjectHeaderInvalidError}),
    "FLOE header": (range(HEADER_LENGTH, FRONT_LENGTH), {ObjectHeaderInvalidError}),
    "segments": (range(FRONT_LENGTH, SMALL.footer_offset(SIZE)), {ObjectTamperedError}),
    "footer": (range(SMALL.footer_offset(SIZE), len(STORED)), {ObjectTamperedError}),
}


def flipped(at: int, bit: int) -> bytes:
    damaged = bytearray(STORED)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def test_the_regions_are_the_object() -> None:
    """The regions below leave out no byte of it."""
    assert [at for region, _ in REGIONS.values() for at in region] == list(range(len(STORED)))


@pytest.mark.parametrize("region", REGIONS)
def test_every_flipped_bit_is_named(region: str) -> None:
    """Each single bit of the object, padding included, makes the read fail with the reason of its region.

    But for the key ARN in the header: it is a hint that nothing here uses, so the read either refuses it or gives
    back exactly what was written.
    """
    places, errors = REGIONS[region]
    for at in places:
        allowed: set[type[KeystowError] | None] = {*errors, None} if at in HINT else {*errors}
        outcomes = {outcome(flipped(at, bit)) for bit in range(8)}
        assert outcomes <= allowed, f"byte {at}"


# --- Lengths, order, other objects ------------------------------------------------------------------------------------


def test_every_truncation_is_named() -> None:
    """Each length shorter than the object's."""
    for length in range(len(STORED)):
        assert outcome(STORED[:length]) in {ObjectTruncatedError, ObjectTamperedError}


def test_truncations_inside_the_front_are_truncations() -> None:
    """What is shorter than any object says so, not that its header is wrong."""
    for length in range(FRONT_LENGTH + 32 + FOOTER_LENGTH):
        assert outcome(STORED[:length]) is ObjectTruncatedError


@pytest.mark.parametrize("length", [0, 8, 4096, FRONT_LENGTH - 1])
def test_a_front_cut_short_is_a_truncation(length: int) -> None:
    """Also when the store gives fewer bytes than its own size promised."""
    with pytest.raises(ObjectTruncatedError):
        read_front(STORED[:length], CORE.tenant_id, CORE.key)


@given(st.binary(min_size=1, max_size=300))
def test_extra_bytes_are_named(extra: bytes) -> None:
    """Anything after the end."""
    assert outcome(STORED + extra) in {ObjectTruncatedError, ObjectTamperedError}


@pytest.mark.parametrize(
    "extra", [b"\0", STORED[-1:], STORED[-FOOTER_LENGTH:], STORED], ids=["zero", "last byte", "footer", "whole"]
)
def test_repeated_ends_are_named(extra: bytes) -> None:
    """Also what was written already."""
    assert outcome(STORED + extra) in {ObjectTruncatedError, ObjectTamperedError}


def segments_of(stored: bytes, size: int) -> list[bytes]:
    return [sealed_segment(stored, index, size) for index in range(SMALL.segments(size))]


def assemble(stored: bytes, segments: list[bytes]) -> bytes:
    """The object with these segments between its front and its footer."""
    return b"".join([stored[:FRONT_LENGTH], *segments, stored[-FOOTER_LENGTH:]])


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3)])
def test_swapped_segments_are_named(one: int, other: int) -> None:
    """Any two segments that change places."""
    segments = segments_of(STORED, SIZE)
    assert assemble(STORED, segments) == STORED
    segments[one], segments[other] = segments[other], segments[one]
    assert outcome(assemble(STORED, segments)) is ObjectTamperedError


@pytest.mark.parametrize("index", range(4))
def test_a_missing_segment_is_named(index: int) -> None:
    """A segment cut out whole leaves an object of possible length; the authentic footer gives it away."""
    segments = segments_of(STORED, SIZE)
    del segments[index]
    # Without its short last segment the object has a length that no object has.
    assert outcome(assemble(STORED, segments)) is ObjectTruncatedError


@pytest.mark.parametrize("index", range(4))
def test_a_repeated_segment_is_named(index: int) -> None:
    """As is one that stands there twice."""
    segments = segments_of(STORED, SIZE)
    segments.insert(index, segments[index])
    assert outcome(assemble(STORED, segments)) in {ObjectTruncatedError, ObjectTamperedError}


@pytest.mark.parametrize("piece", ["header", "front", "segment", "footer"])
def test_pieces_of_another_object_are_named(piece: str) -> None:
    """The same tenant, key, upload and data key: another FLOE IV is enough."""
    other = write(PLAINTEXT)
    begins = SMALL.stored_offset(1)
    places = {
        "header": slice(HEADER_LENGTH),
        "front": slice(FRONT_LENGTH),
        "segment": slice(begins, begins + SMALL.sealed_segment),
        "footer": slice(len(STORED) - FOOTER_LENGTH, len(STORED)),
    }
    spliced = bytearray(STORED)
    spliced[places[piece]] = other[places[piece]]
    assert outcome(bytes(spliced)) is ObjectTamperedError


@pytest.mark.parametrize(
    "change", [{"tenant_id": TenantId("evil")}, {"key": ObjectKey("backups/2026/b.json")}], ids=["tenant", "key"]
)
def test_another_object_in_this_place_is_named(change: dict[str, TenantId | ObjectKey]) -> None:
    """A whole, authentic object of another tenant or key, and the error does not say whose."""
    other = dataclasses.replace(CORE, **change)  # type: ignore[arg-type]  # one of two fields
    foreign = write(PLAINTEXT, core=other)
    assert read(foreign, core=other) == (PLAINTEXT, METADATA)
    with pytest.raises(ObjectTamperedError) as error:
        read_front(foreign[:FRONT_LENGTH], CORE.tenant_id, CORE.key)
    assert not any(text in error.value.message for text in ("evil", "b.json", "acme"))


def test_the_header_of_another_key_does_not_verify() -> None:
    """A core that is rewritten to name this object does not open what was sealed for the other one."""
    other = dataclasses.replace(CORE, key=ObjectKey("backups/2026/b.json"))
    forged = write(PLAINTEXT, core=other).replace(b"2026/b.json", b"2026/a.json")
    assert outcome(forged) is ObjectHeaderInvalidError


def test_another_data_key_does_not_verify() -> None:
    """FLOE's commitment: a header opens under one data key."""
    front = read_front(STORED[:FRONT_LENGTH], CORE.tenant_id, CORE.key)
    with pytest.raises(ObjectHeaderInvalidError):
        SegmentOpener(front, bytes(32), SIZE, SMALL)


# --- Attempts of one upload -------------------------------------------------------------------------------------------


def test_a_stale_attempt_of_a_segment_is_named() -> None:
    """A resumed upload seals a position twice under one key. A whole read refuses the mixture; see docs/format.md."""
    size = 3 * SMALL.segment
    draws = iter([b"f" * 32, b"m" * 12, *(bytes([n]) * 12 for n in range(9))])
    first = begin(random=lambda _: next(draws))
    same_until_sealing = iter([b"f" * 32, b"m" * 12, *(bytes([n]) * 12 for n in range(100, 109))])
    second = begin(random=lambda _: next(same_until_sealing))
    stale = b"".join([*feed_all(first, [b"a" * size]), first.finish(None)])
    final = b"".join([*feed_all(second, [b"b" * size]), second.finish(None)])
    assert read(stale)[0] == b"a" * size
    assert read(final)[0] == b"b" * size

    mixture = segments_of(final, size)
    mixture[1] = segments_of(stale, size)[1]
    mixed = assemble(final, mixture)
    with pytest.raises(ObjectTamperedError, match="not the ones that were committed"):
        read(mixed)


@pytest.mark.parametrize("change", [{"size": 1}, {"crc32c": 1}, {"chain": b"c" * 32}])
def test_a_whole_read_compares_everything(change: dict[str, int | bytes]) -> None:
    """Size, CRC32C and chain of what was read must be the footer's."""
    opener = open_object(STORED)
    footer = opener.footer(STORED[-FOOTER_LENGTH:])
    tally = Tally(footer.size, footer.crc32c, footer.chain)
    opener.check_whole(tally, footer)
    with pytest.raises(ObjectTamperedError):
        opener.check_whole(dataclasses.replace(tally, **change), footer)  # type: ignore[arg-type]  # one field


# --- Ranges -----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_every_range_equals_the_slice(data: st.DataObject) -> None:
    """Any offset and length inside the object, from the segments that hold it alone."""
    offset = data.draw(st.integers(0, SIZE - 1))
    length = data.draw(st.integers(1, SIZE - offset))
    assert read_range(STORED, offset, length) == PLAINTEXT[offset : offset + length]


def test_ranges_in_production_segments() -> None:
    """The same over a boundary of real segments."""
    plaintext = hashlib.shake_256(b"big").digest(2 * V1.segment + 10)
    stored = write(plaintext, layout=V1)
    for offset in (0, V1.segment - 3, 2 * V1.segment - 3, 2 * V1.segment):
        assert read_range(stored, offset, 10, layout=V1) == plaintext[offset : offset + 10]


def test_the_last_segment_is_last() -> None:
    """The size says which segment is final; one that is opened as something else does not verify."""
    front = read_front(STORED[:FRONT_LENGTH], CORE.tenant_id, CORE.key)
    shorter = SegmentOpener(front, DATA_KEY.plaintext, 2 * SMALL.segment + 32, SMALL)
    with pytest.raises(ObjectTamperedError):
        shorter.segment(2, sealed_segment(STORED, 2, SIZE))
    longer = SegmentOpener(front, DATA_KEY.plaintext, 4 * SMALL.segment, SMALL)
    with pytest.raises(ObjectTruncatedError):
        longer.segment(3, sealed_segment(STORED, 3, SIZE))


def test_segments_open_from_any_buffer() -> None:
    """A view into a larger read is opened where it is; the plaintext is bytes, ready to be sent."""
    opener = open_object(STORED)
    begins = SMALL.stored_offset(1)
    for buffer in (STORED, bytearray(STORED), memoryview(bytearray(STORED))):
        plaintext = opener.segment(1, memoryview(buffer)[begins : begins + SMALL.sealed_segment])
        assert type(plaintext) is bytes
        assert plaintext == PLAINTEXT[64:128]


# --- Footer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "reserved"), [(0, 0), (1, 0), (2, 0), (3, 0), (1 << 31, 0), (0, 1)])
def test_footers_of_another_keystow(flags: int, reserved: int) -> None:
    """An authentic footer with something unknown here is unsupported, not damaged."""
    key, core, nonce = bytes(32), b"core", bytes(12)
    plaintext = struct.pack(">QII32s32sI", 7, 8, flags, b"s" * 32, b"c" * 32, reserved)
    sealed = nonce + AESGCM(key).encrypt(nonce, plaintext, core)
    assert len(sealed) == FOOTER_LENGTH
    if flags > 1 or reserved:
        with pytest.raises(ObjectFormatUnsupportedError):
            open_footer(sealed, key, core)
    else:
        assert open_footer(sealed, key, core) == Footer(7, 8, b"c" * 32, b"s" * 32 if flags else None)


@pytest.mark.parametrize("plaintext", [b"\xff", b"", METADATA.principal.encode()])
def test_metadata_that_is_none(plaintext: bytes) -> None:
    """Metadata that verifies and still cannot be read has its own message."""
    key, core, nonce = bytes(32), b"core", bytes(12)
    with pytest.raises(ObjectTamperedError, match="authentic, but unreadable"):
        open_metadata(nonce + AESGCM(key).encrypt(nonce, plaintext, core), key, core)


# --- Texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 9, CORE_START + 3, FRONT_LENGTH - 1, FRONT_LENGTH + 20, len(STORED) - 1])
def test_errors_say_what_to_do(at: int) -> None:
    """Every message tells the operator what helps, and holds no bytes of the object."""
    with pytest.raises(KeystowError) as error:
        read(flipped(at, 0))
    assert "Restore it from" in error.value.message
    assert not any(text in error.value.message for text in ("b'", "\\x", "acme", "backups", "prod-eu"))
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None
