"""FLOE: random-access authenticated encryption of large files (https://c2sp.org/FLOE, proof: ePrint 2025/2275).

Generic over the segment length and nothing else, as the specification is: AES-256-GCM, HKDF-Expand-SHA-384, 32-byte
FLOE IV. It knows nothing of keystow's layout. Promise: a segment opens only with the key, AAD, header, position and
finality it was sealed with; a header only with its key and AAD (key commitment). Checked against the known answers of
the C++, Go and Java reference implementations by tests/vectors.

All randomness is an argument. An IV must be freshly random for every segment sealed, also when one position is sealed
again; derive.py argues why that suffices.
"""

import hmac
import struct
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_LENGTH = 32
IV_LENGTH = 32
HEADER_LENGTH = 74  # encoded parameters, FLOE IV, header tag
SEGMENT_IV_LENGTH = 12
TAG_LENGTH = 16
SEGMENT_OVERHEAD = 32  # length field, segment IV, tag

_AES_256_GCM = 0
_HKDF_SHA_384 = 0
_HEADER_TAG_LENGTH = 32
_MESSAGE_KEY_LENGTH = 48
_MAX_SEGMENTS = 1 << 40
_NOT_FINAL = 0xFFFFFFFF
_PARAMETERS = struct.Struct(">BBII")
_LENGTH_FIELD = struct.Struct(">I")
_SEGMENT_AAD = struct.Struct(">Q?")
_CIPHERTEXT_START = _LENGTH_FIELD.size + SEGMENT_IV_LENGTH


class FloeError(Exception):
    """A header or segment does not verify, or is not one of these parameters."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the two sides must agree on."""

    encrypted_segment_length: int  # ENC_SEG_LEN, bytes
    rotation_mask: int = 20  # AEAD_ROTATION_MASK: a new AES key every 2**20 segments; only known answers use another

    @property
    def segment_length(self) -> int:
        """Plaintext bytes of a full segment."""
        return self.encrypted_segment_length - SEGMENT_OVERHEAD

    def encode(self) -> bytes:
        """PARAM_ENCODE of the specification, 10 bytes."""
        return _PARAMETERS.pack(_AES_256_GCM, _HKDF_SHA_384, self.encrypted_segment_length, IV_LENGTH)


class _Schedule:
    """FLOE_KDF, and the AES key of each segment, kept for as long as one rotation period is in use."""

    def __init__(self, parameters: Parameters, key: bytes, aad: bytes, iv: bytes) -> None:
        if len(key) != KEY_LENGTH or len(iv) != IV_LENGTH:
            raise ValueError("FLOE keys and FLOE IVs are 32 bytes long")
        self._mask = parameters.rotation_mask
        self._info = parameters.encode() + iv, aad
        self.header_tag = self._derive(key, b"HEADER_TAG:", _HEADER_TAG_LENGTH)
        self._message_key = self._derive(key, b"MESSAGE_KEY:", _MESSAGE_KEY_LENGTH)
        self._current: tuple[int, AESGCM] | None = None

    def _derive(self, key: bytes, purpose: bytes, length: int) -> bytes:
        prefix, aad = self._info
        return HKDFExpand(SHA384(), length, prefix + purpose + aad).derive(key)

    def cipher(self, position: int) -> AESGCM:
        """DERIVE_KEY: segments that differ in the masked-off low bits only share a key."""
        if not 0 <= position < _MAX_SEGMENTS:
            raise FloeError("a FLOE ciphertext has at most 2**40 segments")
        period = position >> self._mask
        current = self._current
        if current is None or current[0] != period:
            purpose = b"DEK:" + (period << self._mask).to_bytes(8, "big")
            current = period, AESGCM(self._derive(self._message_key, purpose, KEY_LENGTH))
            self._current = current
        return current[1]


class Encryptor:
    """Seals the segments of one FLOE ciphertext, in any order.

    ``iv`` is the FLOE IV: 32 random bytes, never used before with this key.
    """

    def __init__(self, parameters: Parameters, key: bytes, aad: bytes, iv: bytes) -> None:
        self._parameters = parameters
        self._schedule = _Schedule(parameters, key, aad, iv)
        self.header = parameters.encode() + iv + self._schedule.header_tag  # HEADER_LENGTH bytes

    def seal_into(
        self, position: int, plaintext: Buffer, iv: bytes, out: bytearray | memoryview, *, final: bool
    ) -> None:
        """Seal one segment straight into ``out``, which is exactly SEGMENT_OVERHEAD bytes longer than ``plaintext``.

        ``iv`` is the segment IV: SEGMENT_IV_LENGTH fresh random bytes. Segments that are not final are full. Raises
        ValueError for lengths that break these rules, FloeError past the last possible position.
        """
        size = len(plaintext)
        full = self._parameters.segment_length
        if size > full or (size < full and not final) or len(iv) != SEGMENT_IV_LENGTH:
            raise ValueError("not the plaintext or the IV of a FLOE segment")
        cipher = self._schedule.cipher(position)
        view = memoryview(out)
        _LENGTH_FIELD.pack_into(view, 0, size + SEGMENT_OVERHEAD if final else _NOT_FINAL)
        view[_LENGTH_FIELD.size : _CIPHERTEXT_START] = iv
        cipher.encrypt_into(iv, plaintext, _SEGMENT_AAD.pack(position, final), view[_CIPHERTEXT_START:])


def iv_of(parameters: Parameters, header: bytes) -> bytes:
    """The FLOE IV in a header. Raises FloeError for a header of other parameters."""
    encoded = parameters.encode()
    if len(header) != HEADER_LENGTH or not header.startswith(encoded):
        raise FloeError("the FLOE header is of other parameters")
    return header[len(encoded) : -_HEADER_TAG_LENGTH]


class Decryptor:
    """Opens the segments of one FLOE ciphertext, in any order.

    Raises FloeError unless ``header`` was made with these parameters, this key and this AAD.
    """

    def __init__(self, parameters: Parameters, key: bytes, aad: bytes, header: bytes) -> None:
        self.iv = iv_of(parameters, header)
        tag = header[-_HEADER_TAG_LENGTH:]
        self._parameters = parameters
        self._schedule = _Schedule(parameters, key, aad, self.iv)
        if not hmac.compare_digest(self._schedule.header_tag, tag):
            raise FloeError("the FLOE header does not verify under this key and AAD")

    def open(self, position: int, sealed: Buffer, *, final: bool) -> bytes:
        """The plaintext of one sealed segment. Raises FloeError, and then nothing of it is known to be true.

        The caller knows which position is the final one from elsewhere than the segment: the specification's
        commitment argument needs that.
        """
        longest = self._parameters.encrypted_segment_length
        size = len(sealed)
        if size > longest or size < (SEGMENT_OVERHEAD if final else longest):
            raise FloeError("the segment has a length that no such segment has")
        view = memoryview(sealed)
        if _LENGTH_FIELD.unpack_from(view)[0] != (size if final else _NOT_FINAL):
            raise FloeError("the segment's length field is wrong")
        iv = view[_LENGTH_FIELD.size : _CIPHERTEXT_START]
        try:
            return self._schedule.cipher(position).decrypt(
                iv, view[_CIPHERTEXT_START:], _SEGMENT_AAD.pack(position, final)
            )
        except InvalidTag:
            raise FloeError("the segment does not verify") from None
