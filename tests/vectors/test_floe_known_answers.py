"""FLOE against the known answers of its C++, Go and Java reference implementations."""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keystow_service.envelope.floe import HEADER_LENGTH, SEGMENT_OVERHEAD, Decryptor, Encryptor, Parameters

# All of them: see the README beside the vectors.
KEY = bytes(32)
AAD = b"This is AAD"
ROTATION_MASK = 2  # of those named "rotation"; the others have the standard one


@dataclass(frozen=True, slots=True)
class Vector:
    """One ciphertext with its plaintext."""

    parameters: Parameters
    ciphertext: bytes
    plaintext: bytes

    @property
    def header(self) -> bytes:
        return self.ciphertext[:HEADER_LENGTH]

    def segments(self) -> Iterator[tuple[int, bytes, bool]]:
        """Position, sealed bytes and finality. Only the last segment may be short, and it is never absent."""
        body = self.ciphertext[HEADER_LENGTH:]
        length = self.parameters.encrypted_segment_length
        starts = range(0, len(body), length)
        for position, start in enumerate(starts):
            yield position, body[start : start + length], start == starts[-1]


@pytest.fixture
def vector(floe_vector: Path | None) -> Vector:
    """The vector read from its two files."""
    if floe_vector is None:
        message = "no FLOE known answers: set KEYSTOW_FLOE_KATS to the directory that holds them"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    ciphertext = bytes.fromhex(floe_vector.read_text())
    plaintext = bytes.fromhex(floe_vector.with_name(floe_vector.name.replace("_ct", "_pt")).read_text())
    (length,) = struct.unpack_from(">I", ciphertext, 2)
    parameters = Parameters(length, ROTATION_MASK) if "_rotation_" in floe_vector.name else Parameters(length)
    return Vector(parameters, ciphertext, plaintext)


def test_decrypts(vector: Vector, checked: Counter[str]) -> None:
    """The vector's ciphertext opens to its plaintext."""
    decryptor = Decryptor(vector.parameters, KEY, AAD, vector.header)
    opened = [decryptor.open(position, sealed, final=final) for position, sealed, final in vector.segments()]
    assert b"".join(opened) == vector.plaintext
    checked["decrypted"] += 1


def test_encrypts(vector: Vector, checked: Counter[str]) -> None:
    """Sealing the vector's plaintext with the vector's IVs gives its exact ciphertext."""
    encryptor = Encryptor(vector.parameters, KEY, AAD, vector.header[10:42])
    assert encryptor.header == vector.header
    rest = memoryview(vector.plaintext)
    for position, sealed, final in vector.segments():
        size = len(sealed) - SEGMENT_OVERHEAD
        out = bytearray(len(sealed))
        encryptor.seal_into(position, rest[:size], sealed[4:16], out, final=final)
        assert out == sealed
        rest = rest[size:]
    assert not rest
    checked["encrypted"] += 1
