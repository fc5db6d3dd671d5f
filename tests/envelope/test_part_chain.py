"""The chain over an upload's durable parts (envelope/part_chain.py): it tells any two sequences of parts apart."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystow_service.envelope.part_chain import PartChain

PARTS = [('"etag-1"', 8 << 20), ('"etag-2"', 8 << 20), ('"etag-3"', 16 << 20)]

SEQUENCES = st.lists(st.tuples(st.text("ab1\0", max_size=4), st.integers(0, (1 << 64) - 1)), max_size=4)


def chain(parts: list[tuple[str, int]]) -> PartChain:
    """Of these parts."""
    made = PartChain()
    for part in parts:
        made = made.after(*part)
    return made


def test_the_chain_is_as_documented() -> None:
    """SHA-256 over the digest so far, the part's number and size, big-endian, and its ETag."""
    digest = bytes(32)
    for number, (etag, size) in enumerate(PARTS, start=1):
        digest = hashlib.sha256(digest + number.to_bytes(4, "big") + size.to_bytes(8, "big") + etag.encode()).digest()
        assert chain(PARTS[:number]) == PartChain(number, digest)


@given(SEQUENCES, SEQUENCES)
def test_different_parts_have_different_chains(one: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    """Whatever they differ in, and only then."""
    assert (chain(one) == chain(other)) == (one == other)
    assert (chain(one).digest == chain(other).digest) == (one == other)


@pytest.mark.parametrize(
    "other",
    [
        [PARTS[1], PARTS[0], PARTS[2]],
        [*PARTS[:2]],
        [*PARTS, ("", 0)],
        [*PARTS[:2], ('"etag-3"', (16 << 20) + 1)],
        [*PARTS[:2], ('"etag-4"', 16 << 20)],
        [('"etag-1""etag-2"', 8 << 20), PARTS[2]],
        [("", 8 << 20), *PARTS[1:]],
    ],
    ids=["order", "one fewer", "one more", "size", "ETag", "two as one", "no ETag"],
)
def test_what_tells_them_apart(other: list[tuple[str, int]]) -> None:
    """Order, number, sizes and ETags."""
    assert chain(other).digest != chain(PARTS).digest


def test_the_past_stays() -> None:
    """A chain that is continued in two ways is itself unchanged."""
    start = chain(PARTS[:1])
    assert start.after(*PARTS[1]) != start.after(*PARTS[2])
    assert start == chain(PARTS[:1])
