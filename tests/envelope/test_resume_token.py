"""Resume tokens (envelope/resume_token.py): they open as they were sealed, for the same upload, or not at all."""

import os
import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from envelope.stored import CORE, DATA_KEY, METADATA, begin
from keystow.storage.v1 import resume_pb2
from keystow_service.envelope import header
from keystow_service.envelope.header import Core
from keystow_service.envelope.layout import FRONT_LENGTH, HEADER_LENGTH, V1
from keystow_service.envelope.part_chain import PartChain
from keystow_service.envelope.resume_token import MAX_LENGTH, ResumeState, TokenSealer, parse
from keystow_service.envelope.sealing import Metadata
from keystow_service.envelope.tally import Tally
from keystow_service.errors import ResumeTokenInvalidError
from keystow_service.model import ObjectKey, TenantId, UploadId

STATE = ResumeState(
    store_upload_id="VXBsb2FkIElE",
    size=1 << 40,
    write_mode="overwrite",
    replaces='"d41d8cd98f00b204e9800998ecf8427e"',
    tally=Tally(8 << 20, 0xDEADBEEF, bytes(range(32))),
    parts=PartChain().after('"e0"', 8 << 20),
)
FLOE_HEADER_LENGTH = FRONT_LENGTH - HEADER_LENGTH
KEY = DATA_KEY.plaintext


def front(core: Core = CORE) -> bytes:
    """The beginning of a stored object."""
    return begin(core=core, layout=V1).front


FRONT = front()
TOKEN = TokenSealer(FRONT, KEY, os.urandom).seal(STATE)


def opened(token: bytes, *, core: Core = CORE, data_key: bytes = KEY) -> tuple[Metadata, ResumeState]:
    """Everything that a resumed Put does, with a KMS that unwraps anything."""
    return parse(token, core.tenant_id, core.key).open(data_key)


COUNTS = st.integers(0, (1 << 63) - 1)


@given(
    st.builds(
        ResumeState,
        st.text(max_size=1000),
        st.none() | COUNTS,
        st.text(max_size=20),
        st.none() | st.text(max_size=100),
        st.builds(Tally, COUNTS, st.integers(0, (1 << 32) - 1), st.binary(min_size=32, max_size=32)),
        st.builds(PartChain, st.integers(0, 10_000), st.binary(min_size=32, max_size=32)),
    )
)
def test_a_token_gives_back_its_state(state: ResumeState) -> None:
    """Whatever the state, and with it the metadata that the Put began with."""
    assert opened(TokenSealer(FRONT, KEY, os.urandom).seal(state)) == (METADATA, state)


@pytest.mark.parametrize("in_zero", [False, True])
def test_a_token_gives_back_the_objects_front(*, in_zero: bool) -> None:
    """To the byte, also where the header's last byte is a zero, as its padding is."""
    fronts = (front() for _ in range(100_000))  # one in 256 ends so
    stored = next(made for made in fronts if _last_byte(made) == 0) if in_zero else FRONT
    token = parse(TokenSealer(stored, KEY, os.urandom).seal(STATE), CORE.tenant_id, CORE.key)
    assert token.stored_front == stored
    assert token.front.header.wrap.wrapped_key == DATA_KEY.wrapped
    assert token.open(KEY) == (METADATA, STATE)


def test_the_layout_is_as_documented() -> None:
    """Opened by hand: the object's header and FLOE header in clear, all of them AAD, then the sealed state."""
    magic, length = struct.unpack_from(">4sH", TOKEN)
    clear_end = 6 + length + FLOE_HEADER_LENGTH
    assert magic == b"KSR1"
    assert TOKEN[6 : 6 + length] == FRONT[:HEADER_LENGTH].rstrip(b"\0")
    assert TOKEN[6 + length : clear_end] == FRONT[HEADER_LENGTH:]
    floe_iv = FRONT[HEADER_LENGTH:][10:42]
    key = HKDFExpand(SHA384(), 32, b"keystow/v1/resume-token\0" + floe_iv).derive(KEY)
    sealed = TOKEN[clear_end:]
    message = resume_pb2.ResumeState.FromString(AESGCM(key).decrypt(sealed[:12], sealed[12:], TOKEN[:clear_end]))
    assert (message.store_upload_id, message.persisted_size) == (STATE.store_upload_id, STATE.tally.size)


def test_what_it_must_not_show() -> None:
    """Neither the store's id of the upload nor the data key can be read in it, nor in what logs may print."""
    for secret in (STATE.store_upload_id.encode(), KEY, KEY.hex().encode()):
        assert secret not in TOKEN
    assert KEY.hex() not in repr(parse(TOKEN, CORE.tenant_id, CORE.key))


def test_no_two_tokens_share_a_nonce() -> None:
    """Of one state as of many."""
    sealer = TokenSealer(FRONT, KEY, os.urandom)
    at = len(TOKEN) - len(_sealed(TOKEN))
    assert len({sealer.seal(STATE)[at : at + 12] for _ in range(100)}) == 100


def test_every_bit_counts() -> None:
    """With any bit flipped, in the clear part too, the token is refused; no other error comes of it."""
    for bit in range(8 * len(TOKEN)):
        flipped = bytearray(TOKEN)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ResumeTokenInvalidError):
            opened(bytes(flipped))


def test_every_length_but_its_own_is_refused() -> None:
    """Cut anywhere, with a byte more, or longer than any token."""
    longer = (TOKEN + b"\0", TOKEN + bytes(MAX_LENGTH))
    for token in (*(TOKEN[:length] for length in range(len(TOKEN))), *longer):
        with pytest.raises(ResumeTokenInvalidError):
            opened(token)


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    """Also where it begins as a token does."""
    for start in (b"", TOKEN[:6], TOKEN[: -len(_sealed(TOKEN))], TOKEN[:-20]):
        with pytest.raises(ResumeTokenInvalidError):
            opened(start + garbage)


@pytest.mark.parametrize(
    "other",
    [
        replace(CORE, tenant_id=TenantId("acne")),
        replace(CORE, key=ObjectKey("backups/2026/b.json")),
    ],
    ids=["tenant", "key"],
)
def test_another_object_is_refused(other: Core) -> None:
    """Of another tenant or key, even with the same data key; nor does a token's state fit another upload's front."""
    with pytest.raises(ResumeTokenInvalidError):
        parse(TOKEN, other.tenant_id, other.key)
    theirs = TokenSealer(front(other), KEY, os.urandom).seal(STATE)
    with pytest.raises(ResumeTokenInvalidError):
        opened(theirs[: -len(_sealed(theirs))] + _sealed(TOKEN), core=other)


@pytest.mark.parametrize(
    "other",
    [
        front(replace(CORE, upload_id=UploadId("99999999-7a39-4d0a-9c1c-3f3c5e6f7a8b"))),
        front(replace(CORE, deployment_id="prod-eu-2")),
        front(),
        FRONT[:HEADER_LENGTH] + front()[HEADER_LENGTH:],
        front()[:HEADER_LENGTH] + FRONT[HEADER_LENGTH:],
    ],
    ids=["upload", "deployment", "the same again", "FLOE header", "header"],
)
def test_another_upload_is_refused(other: bytes) -> None:
    """Of the same object: a state is bound to all of the front that it was sealed with."""
    theirs = TokenSealer(other, KEY, os.urandom).seal(STATE)
    with pytest.raises(ResumeTokenInvalidError):
        opened(theirs[: -len(_sealed(theirs))] + _sealed(TOKEN))


def test_another_data_key_is_refused() -> None:
    """A token is of use only to those whom KMS gives the object's data key."""
    with pytest.raises(ResumeTokenInvalidError):
        opened(TOKEN, data_key=bytes(32))


def _sealed(token: bytes) -> bytes:
    """Nonce, state and tag."""
    (length,) = struct.unpack_from(">H", token, 4)
    return token[6 + length + FLOE_HEADER_LENGTH :]


def _last_byte(stored_front: bytes) -> int:
    """Of its header."""
    return header.parse(stored_front[:HEADER_LENGTH]).sealed_metadata[-1]
