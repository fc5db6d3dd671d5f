"""FLOE's rules, beyond the known answers in tests/vectors (envelope/floe.py)."""

import pytest

from keystow_service.envelope.floe import Decryptor, Encryptor, FloeError, Parameters

PARAMETERS = Parameters(encrypted_segment_length=64)
KEY = bytes(range(32))
AAD = b"aad"
ENCRYPTOR = Encryptor(PARAMETERS, KEY, AAD, b"i" * 32)
FULL = bytes(32)


def seal(position: int, plaintext: bytes, *, final: bool, encryptor: Encryptor = ENCRYPTOR) -> bytearray:
    out = bytearray(len(plaintext) + 32)
    encryptor.seal_into(position, plaintext, b"n" * 12, out, final=final)
    return out


def decryptor(**changes: object) -> Decryptor:
    arguments = {"parameters": PARAMETERS, "key": KEY, "aad": AAD, "header": ENCRYPTOR.header} | changes
    return Decryptor(**arguments)  # type: ignore[arg-type]  # the point is to pass one wrong thing


@pytest.mark.parametrize(
    "change",
    [
        {"key": bytes(32)},
        {"aad": b"other"},
        {"parameters": Parameters(128)},
        {"header": ENCRYPTOR.header[:-1]},
        {"header": ENCRYPTOR.header + b"\0"},
        {"header": b""},
        *({"header": bytes(b ^ (i == at) for i, b in enumerate(ENCRYPTOR.header))} for at in range(74)),
    ],
)
def test_header_commits_to_key_aad_and_parameters(change: dict[str, object]) -> None:
    """A header opens with exactly what it was made with; any byte of it counts."""
    decryptor()
    with pytest.raises(FloeError):
        decryptor(**change)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("position", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 40) - 1])
def test_any_position_opens_at_its_position_alone(position: int, *, final: bool) -> None:
    """Random access up to the last position there is; the same bytes open nowhere else and not as the other kind."""
    sealed = seal(position, FULL, final=final)
    assert decryptor().open(position, sealed, final=final) == FULL
    for elsewhere in {0, 1, 1 << 20, (1 << 40) - 1, position ^ 2} - {position}:
        with pytest.raises(FloeError):
            decryptor().open(elsewhere, sealed, final=final)
    with pytest.raises(FloeError):
        decryptor().open(position, sealed, final=not final)


@pytest.mark.parametrize("position", [-1, 1 << 40])
def test_positions_past_the_end_are_refused(position: int) -> None:
    """2**40 segments are the most that FLOE allows."""
    with pytest.raises(FloeError):
        seal(position, FULL, final=True)
    with pytest.raises(FloeError):
        decryptor().open(position, seal(0, FULL, final=True), final=True)


@pytest.mark.parametrize("rotation_mask", [0, 1, 20])
def test_segment_keys_rotate(rotation_mask: int) -> None:
    """With one IV, two segments share a key stream exactly if they are of one rotation period."""
    encryptor = Encryptor(Parameters(64, rotation_mask), KEY, AAD, b"i" * 32)
    bodies = [seal(position, FULL, final=False, encryptor=encryptor)[16:48] for position in range(4)]
    assert len({bytes(body) for body in bodies}) == max(1, 4 >> rotation_mask)
    assert seal(0, FULL, final=False, encryptor=encryptor)[16:48] == bodies[0]


@pytest.mark.parametrize(("size", "final"), [(33, True), (33, False), (31, False), (0, False)])
def test_segments_of_wrong_length_are_not_sealed(size: int, *, final: bool) -> None:
    """Only the final segment may be short, and none is long."""
    with pytest.raises(ValueError, match="not the plaintext"):
        seal(0, bytes(size), final=final)


@pytest.mark.parametrize(("key", "iv"), [(bytes(31), bytes(32)), (bytes(32), bytes(33))])
def test_keys_and_ivs_have_32_bytes(key: bytes, iv: bytes) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="32 bytes"):
        Encryptor(PARAMETERS, key, AAD, iv)


@pytest.mark.parametrize("size", [0, 1, 31, 32])
def test_final_segments_of_every_length(size: int) -> None:
    """A final segment may be empty, short or full, and any cut or longer one is refused."""
    sealed = seal(7, bytes(size), final=True)
    assert decryptor().open(7, sealed, final=True) == bytes(size)
    for wrong in (sealed[:-1], sealed + b"\0", sealed[:31], b""):
        with pytest.raises(FloeError):
            decryptor().open(7, wrong, final=True)
