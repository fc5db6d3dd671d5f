"""Sizes, offsets and part plans (envelope/layout.py)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystow_service.envelope.layout import (
    FOOTER_LENGTH,
    FRONT_LENGTH,
    MAX_SIZE,
    MAX_UNDECLARED_SIZE,
    V1,
    Layout,
    PartPlan,
)
from keystow_service.errors import ObjectTooLargeError, ObjectTruncatedError
from keystow_service.model import GIB, MIB

SIZES = st.integers(0, 2 * MAX_SIZE)
TINY = Layout(segment=3)


def test_the_constants_of_version_1() -> None:
    """The numbers that docs/format.md states."""
    assert FRONT_LENGTH == 4170
    assert V1.sealed_segment == 1_048_608
    assert V1.floe_parameters.encrypted_segment_length == 1_048_608
    assert V1.floe_parameters.segment_length == MIB
    assert V1.floe_parameters.rotation_mask == 20
    assert V1.stored_size(0) == 4170 + 32 + 112
    assert V1.stored_size(MIB) == 4170 + 1_048_608 + 32 + 112
    assert MAX_SIZE == 10_000 * 128 * MIB
    assert MAX_UNDECLARED_SIZE == 400 * GIB


@given(SIZES)
def test_the_stored_size_gives_the_size(size: int) -> None:
    """Sizes and stored sizes are one to one."""
    assert V1.plaintext_size(V1.stored_size(size)) == size


def test_stored_sizes_that_no_size_gives() -> None:
    """Every stored size is either that of one size or refused by name, and there are no others."""
    possible = {TINY.stored_size(size): size for size in range(200)}
    for stored_size in range(TINY.stored_size(199) + 1):
        if stored_size in possible:
            assert TINY.plaintext_size(stored_size) == possible[stored_size]
        else:
            with pytest.raises(ObjectTruncatedError):
                TINY.plaintext_size(stored_size)


@given(st.integers(0, 50))
def test_pieces_lie_end_to_end(size: int) -> None:
    """Front, segments and footer follow one another without a gap, and fill the stored size."""
    end = FRONT_LENGTH
    for index in range(TINY.segments(size)):
        assert TINY.stored_offset(index) == end
        end += TINY.sealed_length(size, index)
    assert TINY.footer_offset(size) == end
    assert TINY.stored_size(size) == end + FOOTER_LENGTH


@given(SIZES)
def test_the_last_segment_is_short(size: int) -> None:
    """All segments but the last are full, and the last never is."""
    count = V1.segments(size)
    assert V1.sealed_length(size, count - 1) < V1.sealed_segment
    assert all(V1.sealed_length(size, index) == V1.sealed_segment for index in {0, count - 2} if 0 <= index < count - 1)


@given(SIZES)
def test_every_offset_is_in_its_segment(offset: int) -> None:
    """A byte is in the segment whose bytes surround it."""
    index = V1.segment_at(offset)
    assert index * MIB <= offset < (index + 1) * MIB


def part_sizes(size: int, *, declared: bool) -> list[int]:
    """Stored bytes of each part of an object, by the rule that full parts are taken when a further byte comes."""
    plan = PartPlan(V1, size if declared else None)
    sizes: list[int] = []
    rest = size
    for number in itertools.count(1):
        full = plan.segments_in(number)
        front = FRONT_LENGTH if number == 1 else 0
        if rest <= full * MIB:
            segments = V1.segments(rest)
            return [*sizes, front + rest + segments * 32 + FOOTER_LENGTH]
        sizes.append(front + full * V1.sealed_segment)
        rest -= full * MIB
    raise AssertionError


BOUNDARIES = [
    *(parts * segments * MIB for parts in (1, 2, 9_999, 10_000) for segments in (1, 7, 8, 9, 64, 127, 128)),
    *(steps * 1_000 * MIB for steps in (8, 8 + 16, 8 + 16 + 32)),
    400 * GIB,
    10 * GIB,
]


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_the_plan_fits_s3_at_every_boundary(*, declared: bool) -> None:
    """At most 10,000 parts, each between 5 MiB and 5 GiB but for the last, and together the whole object."""
    limit = MAX_SIZE if declared else MAX_UNDECLARED_SIZE
    for boundary, step in itertools.product([0, *BOUNDARIES], (-MIB, -1, 0, 1, MIB)):
        size = boundary + step
        if 0 <= size <= limit:
            sizes = part_sizes(size, declared=declared)
            assert len(sizes) <= 10_000
            assert all(5 * MIB <= part <= 5 * GIB for part in sizes[:-1])
            assert 0 < sizes[-1] <= 5 * GIB
            assert sum(sizes) == V1.stored_size(size)


@given(st.integers(0, MAX_SIZE))
def test_declared_sizes_get_the_smallest_parts_that_fit(size: int) -> None:
    """One segment a part fewer would need more than 10,000 parts, or be fewer than 8."""
    segments = PartPlan(V1, size).segments_in(1)
    assert 8 <= segments <= 128
    assert 10_000 * segments * MIB >= size
    assert segments == 8 or 10_000 * (segments - 1) * MIB < size


def test_undeclared_sizes_get_growing_parts() -> None:
    """8, 16 and 32 segments for 1,000 parts each, then 64: enough for what may be sent undeclared."""
    plan = PartPlan(V1, None)
    assert [plan.segments_in(number) for number in (1, 1_000, 1_001, 2_000, 2_001, 3_000, 3_001, 10_000)] == [
        8,
        8,
        16,
        16,
        32,
        32,
        64,
        64,
    ]
    assert sum(plan.segments_in(number) for number in range(1, 10_001)) * MIB > MAX_UNDECLARED_SIZE


def test_objects_have_an_end() -> None:
    """The largest object is planned, one byte more is refused."""
    assert PartPlan(V1, MAX_SIZE).segments_in(1) == 128
    with pytest.raises(ObjectTooLargeError):
        PartPlan(V1, MAX_SIZE + 1)
