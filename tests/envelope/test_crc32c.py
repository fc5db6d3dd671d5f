"""CRCs of joined runs (envelope/crc32c.py)."""

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystow_service.envelope.crc32c import combine


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_combined_is_the_crc_of_the_whole(first: bytes, second: bytes) -> None:
    """The CRCs of two runs and the second one's length give the CRC of both in a row."""
    crcs = google_crc32c.value(first), google_crc32c.value(second)
    assert combine(*crcs, len(second)) == google_crc32c.value(first + second)


@pytest.mark.parametrize("length", [1 << 20, (1 << 20) - 1, (1 << 22) + 3])
def test_long_runs(length: int) -> None:
    """Also for whole segments and more."""
    second = bytes(length)
    crcs = google_crc32c.value(b"123456789"), google_crc32c.value(second)
    assert combine(*crcs, length) == google_crc32c.value(b"123456789" + second)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**60), st.integers(0, 2**60))
def test_lengths_no_test_could_hold(crc: int, one: int, other: int) -> None:
    """Zeros appended in two steps or in one: the arithmetic holds for lengths of petabytes."""
    assert combine(combine(crc, 0, one), 0, other) == combine(crc, 0, one + other)
