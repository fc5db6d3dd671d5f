"""Checkpoint tokens (envelope/checkpoint.py): they open as they were sealed, for the same export, or not at all."""

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from keystow.storage.v1 import export_pb2
from keystow_service.envelope.checkpoint import SCOPE_LENGTH, ExportPosition, SealedCheckpoint, seal
from keystow_service.errors import CheckpointTokenInvalidError
from keystow_service.model import DataKey

SCOPE = bytes(range(SCOPE_LENGTH))
DATA_KEY = DataKey(b"\x42" * 32, b"wrapped by KMS")
POSITION = ExportPosition("backups/ä.json", (3, 14), 1 << 40, 7, 100_000, 3, 1 << 41)
TOKEN = seal(POSITION, SCOPE, DATA_KEY, os.urandom)

COUNTS = st.integers(0, (1 << 64) - 1)


def opened(token: bytes, *, scope: bytes = SCOPE, data_key: bytes = DATA_KEY.plaintext) -> ExportPosition:
    """Everything that a continuation does, with a KMS that unwraps anything."""
    return SealedCheckpoint.parse(token, scope).open(data_key)


@given(
    st.builds(
        ExportPosition,
        st.text(max_size=900),
        st.lists(st.integers(0, 900), max_size=900).map(tuple),
        COUNTS,
        COUNTS,
        COUNTS,
        COUNTS,
        COUNTS,
    )
)
def test_a_token_gives_back_its_position(position: ExportPosition) -> None:
    """Whatever the position."""
    assert opened(seal(position, SCOPE, DATA_KEY, os.urandom)) == position


def test_it_names_the_data_key_to_unwrap() -> None:
    """That is all a server process needs, beside the tenant's KMS key."""
    assert SealedCheckpoint.parse(TOKEN, SCOPE).wrapped_key == DATA_KEY.wrapped


def test_the_layout_is_as_documented() -> None:
    """Opened by hand, from docs/format.md."""
    assert (TOKEN[0], TOKEN[1:33], TOKEN[65:67], TOKEN[67:81]) == (1, SCOPE, b"\0\x0e", DATA_KEY.wrapped)
    info = b"keystow/v1/checkpoint\0" + TOKEN[33:65]
    key = HKDFExpand(SHA384(), 32, info).derive(DATA_KEY.plaintext)
    plaintext = AESGCM(key).decrypt(TOKEN[81:93], TOKEN[93:], TOKEN[:81])
    assert export_pb2.ExportPosition.FromString(plaintext).last_key == POSITION.last_key


def test_the_position_is_not_to_be_read() -> None:
    """Nor is the data key in it."""
    assert b"backups" not in TOKEN
    assert DATA_KEY.plaintext not in TOKEN
    assert "wrapped" not in repr(SealedCheckpoint.parse(TOKEN, SCOPE))


def test_no_two_tokens_share_key_or_nonce() -> None:
    """Of one position as of many: salt and nonce are drawn anew."""
    tokens = [seal(POSITION, SCOPE, DATA_KEY, os.urandom) for _ in range(100)]
    assert len({token[33:65] for token in tokens}) == len({token[81:93] for token in tokens}) == 100


def test_every_bit_counts() -> None:
    """With any bit flipped the token is refused; no other error comes of it."""
    for bit in range(8 * len(TOKEN)):
        flipped = bytearray(TOKEN)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointTokenInvalidError):
            opened(bytes(flipped))


def test_every_length_but_its_own_is_refused() -> None:
    """Cut anywhere, or with a byte more."""
    for token in (*(TOKEN[:length] for length in range(len(TOKEN))), TOKEN + b"\0"):
        with pytest.raises(CheckpointTokenInvalidError):
            opened(token)


@given(st.binary(max_size=300))
def test_garbage_is_refused(token: bytes) -> None:
    """Also where it begins as a token does."""
    for garbage in (token, TOKEN[:33] + token, TOKEN[:81] + token):
        with pytest.raises(CheckpointTokenInvalidError):
            opened(garbage)


def test_another_scope_or_key_is_refused() -> None:
    """A token continues the export that it was given for, and only with the data key that it was sealed under."""
    with pytest.raises(CheckpointTokenInvalidError):
        opened(TOKEN, scope=bytes(SCOPE_LENGTH))
    with pytest.raises(CheckpointTokenInvalidError):
        opened(TOKEN, data_key=bytes(32))
    spliced = seal(replace(POSITION, archive_size=0), bytes(SCOPE_LENGTH), DATA_KEY, os.urandom)
    with pytest.raises(CheckpointTokenInvalidError):
        opened(TOKEN[:33] + spliced[33:])


@pytest.mark.parametrize("length", [0, 1025])
def test_no_more_is_unwrapped_than_a_header_can_hold(length: int) -> None:
    """What KMS is asked for is of the size of a wrapped data key."""
    with pytest.raises(CheckpointTokenInvalidError):
        SealedCheckpoint.parse(seal(POSITION, SCOPE, DataKey(bytes(32), bytes(length)), os.urandom), SCOPE)
