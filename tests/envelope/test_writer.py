"""The part writer (envelope/writer.py)."""

import hashlib
import io
import tracemalloc

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.stored import CORE, METADATA, SMALL, begin, feed_all, open_object, read, write, write_parts
from keystow_service.envelope.layout import FOOTER_LENGTH, FRONT_LENGTH, MAX_UNDECLARED_SIZE, V1, Layout, PartPlan
from keystow_service.errors import ObjectTooLargeError, SizeMismatchError
from keystow_service.model import MIB

PART = 8 * SMALL.segment  # plaintext bytes of a full part


@st.composite
def split(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Some bytes, up to three parts of them, and one way to cut them into chunks."""
    size = draw(st.one_of(st.integers(0, 3 * PART), st.sampled_from([0, 1, 63, 64, 65, PART - 1, PART, PART + 1])))
    plaintext = hashlib.shake_256(b"split").digest(size)
    cuts = sorted(draw(st.lists(st.one_of(st.integers(0, size), st.sampled_from(range(0, size + 1, 64))), max_size=12)))
    return plaintext, [plaintext[a:b] for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


@given(split(), st.booleans())
def test_any_split_gives_the_same_plaintext_back(case: tuple[bytes, list[bytes]], declared: bool) -> None:  # noqa: FBT001 - drawn
    """However the bytes arrive, the object holds them, and its parts are the plan's."""
    plaintext, chunks = case
    parts = write_parts(chunks, len(plaintext) if declared else None)
    stored = b"".join(parts)
    assert read(stored) == (plaintext, METADATA)
    assert len(stored) == SMALL.stored_size(len(plaintext))
    assert len(parts) == max(1, -(-len(plaintext) // PART))


def test_the_split_does_not_show() -> None:
    """With the same randomness every split gives the same bytes."""
    plaintext = bytes(range(256)) * 6
    objects = set()
    for step in (1, 7, 63, 64, 65, 128, 1536):
        writer = begin(random=io.BytesIO(hashlib.shake_256(b"pinned").digest(1000)).read)
        parts = feed_all(writer, [plaintext[at : at + step] for at in range(0, len(plaintext), step)])
        objects.add(b"".join([*parts, writer.finish(None)]))
    assert len(objects) == 1


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("segments", [0, 1, 7, 8])
def test_objects_of_up_to_one_part_are_one_part(segments: int, *, declared: bool) -> None:
    """Exactly 8 full segments are still a single part: it closes only when a further byte arrives."""
    size = segments * SMALL.segment
    (part,) = write_parts([bytes(size)], size if declared else None)
    assert len(part) == SMALL.stored_size(size)


def test_parts_hold_whole_segments() -> None:
    """The first part carries the front, the last one the footer, and every part begins with a segment."""
    parts = write_parts([bytes(2 * PART + 1)])
    assert [len(part) for part in parts] == [
        FRONT_LENGTH + 8 * SMALL.sealed_segment,
        8 * SMALL.sealed_segment,
        32 + 1 + FOOTER_LENGTH,
    ]


def test_parts_of_undeclared_size_grow() -> None:
    """After 1,000 parts of 8 segments come parts of 16, and together they are still the object."""
    layout = Layout(segment=1)
    plaintext = bytes(8_000 + 16 + 1)
    parts = write_parts([plaintext], layout=layout)
    assert [len(part) for part in parts[998:]] == [8 * 33, 8 * 33, 16 * 33, 33 + 32 + FOOTER_LENGTH]
    assert read(b"".join(parts), layout=layout)[0] == plaintext


def test_a_full_part_is_not_overrun() -> None:
    """Feeding on without taking the part is a mistake of the caller, and loses nothing."""
    writer = begin()
    assert sum(writer.feed(bytes(64)) for _ in range(8)) == PART
    with pytest.raises(ValueError, match="part is full"):
        writer.feed(b"x")
    part = writer.take_full_part()
    assert part is not None
    assert writer.take_full_part() is None
    assert writer.feed(b"x") == 1
    assert read(bytes(part + writer.finish(None)))[0] == bytes(PART) + b"x"


def test_parts_belong_to_whoever_takes_them() -> None:
    """A part taken is never written to again, and can be resized: nobody else looks at it."""
    writer = begin()
    feed_all(writer, [bytes(PART)])
    part = writer.take_full_part()
    assert part is not None
    copy = bytes(part)
    feed_all(writer, [bytes(PART)])
    writer.finish(None)
    assert part == copy
    part.clear()


def test_feed_stops_at_the_end_of_a_segment() -> None:
    """One call seals at most one segment, so that a lease can be checked before each."""
    writer = begin()
    chunk = bytes(200)
    assert writer.feed(chunk, 190) == 10
    assert writer.feed(chunk) == 54
    assert writer.feed(chunk) == 64
    assert writer.feed(chunk, 150) == 50
    assert writer.size == 178


@given(split())
def test_the_writer_knows_size_and_checksum(case: tuple[bytes, list[bytes]]) -> None:
    """After finish they are the whole plaintext's, and the footer's."""
    plaintext, chunks = case
    writer = begin()
    parts = feed_all(writer, chunks)
    assert writer.size == len(plaintext)
    sha256 = hashlib.sha256(plaintext).digest()
    stored = b"".join([*parts, writer.finish(sha256)])
    assert writer.size == len(plaintext)
    assert writer.tally.crc32c == google_crc32c.value(plaintext)
    footer = open_object(stored).footer(stored[-FOOTER_LENGTH:])
    assert (footer.size, footer.crc32c, footer.sha256) == (len(plaintext), writer.tally.crc32c, sha256)


def test_a_given_checksum_is_used() -> None:
    """The caller's CRC of a whole aligned chunk is believed: it has checked it, and the bytes are read once."""
    writer = begin()
    writer.feed(bytes(64), crc32c=123)
    assert writer.tally.crc32c == 123


@pytest.mark.parametrize("size", [0, 1, 64, 65, PART])
def test_a_declared_size_is_enforced(size: int) -> None:
    """One byte more is refused when it comes, one byte less when the end comes."""
    writer = begin(size)
    with pytest.raises(SizeMismatchError):
        feed_all(writer, [bytes(size), b"x"])
    if size:
        writer = begin(size)
        feed_all(writer, [bytes(size - 1)])
        with pytest.raises(SizeMismatchError):
            writer.finish(None)


class ShortPlan(PartPlan):
    """As without a declared size, but over sooner."""

    limit = 100


def test_an_undeclared_size_has_a_limit() -> None:
    """The plan's limit is reached and not passed, and the error says what to do."""
    assert PartPlan(V1, None).limit == MAX_UNDECLARED_SIZE
    writer = begin(plan=ShortPlan(SMALL, None))
    feed_all(writer, [bytes(100)])
    with pytest.raises(ObjectTooLargeError, match="Declare its size"):
        feed_all(writer, [b"x"])


@pytest.mark.parametrize(("size", "declared"), [(0, None), (100, None), (100, 100), (3 * MIB, 3 * MIB)])
def test_small_objects_take_little_memory(size: int, declared: int | None) -> None:
    """No part of 8 MiB is allocated for an object that is known to be smaller, or ends within its first segment."""
    plaintext = bytes(size)
    begin(layout=V1)
    tracemalloc.start()
    write_parts([plaintext], declared, layout=V1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * size + 200_000


def test_an_aligned_chunk_is_not_copied() -> None:
    """A 1 MiB chunk goes into the part without being held anywhere else."""
    chunk = bytes(MIB)
    writer = begin(layout=V1)
    writer.feed(chunk)
    tracemalloc.start()
    writer.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_same_plaintext_never_gives_the_same_bytes() -> None:
    """Two Puts of one object share nothing that is sealed: every IV is drawn anew."""
    one, other = write(bytes(200)), write(bytes(200))
    assert one[:18] == other[:18]
    assert one[FRONT_LENGTH - 64 :] != other[FRONT_LENGTH - 64 :]
    assert {one[at : at + 12] for at in range(FRONT_LENGTH, len(one))}.isdisjoint(
        other[at : at + 12] for at in range(FRONT_LENGTH, len(other))
    )
    assert CORE.encode() in one
