"""Every key that keystow derives from a data key, and why no nonce can repeat under any of them.

A data key is 32 random bytes from KMS GenerateDataKey. While its lease lives it may serve many objects of one tenant
(keys.md: at most 100,000). Everything below is HKDF-Expand-SHA-384 (RFC 5869) of it:

- FLOE uses it as its key. Its KDF inputs begin with the encoded parameters, whose first byte is 0; ours begin with the
  "k" of "keystow/v1/": no input of the one is ever an input of the other.
- Ours are ``label || 0x00 || FLOE IV``, or a salt in the IV's place. No label holds a zero byte, so no two pairs of
  label and IV give one input.

AES-256-GCM fails if one key ever sees one nonce twice with different plaintexts. It does not:

- Segments. FLOE derives an AES key per FLOE IV, core and 2**20 segments. FLOE IVs are 256 random bits, so two objects
  never share a segment key. Under one segment key every sealing draws a fresh random 96-bit IV, also when a resumed
  upload seals a position again with other bytes: nothing is ever derived from a position alone. Even if every segment
  of a 2**20 period were sealed eight times, that is 2**23 nonces: a repeat has probability below 2**-50.
- Metadata, footer and resume tokens. Their keys are bound to the FLOE IV, hence to one object. The metadata is sealed
  once, with the header; the footer once for each stream that reaches its end; a resume token at most once for each part
  that a stream has made durable. Each sealing draws a fresh random 96-bit nonce: for the handful of metadata and
  footers under one key a repeat has probability below 2**-80, and for tokens, were all 10,000 parts sent by a hundred
  streams, below 2**-56.
- Checkpoint tokens of exports. Their keys are bound to a salt of 256 random bits in the place of the FLOE IV, drawn
  for each token, so a key seals one token, once; its nonce is random as well.

The core is the AAD of all that an object holds, so nothing sealed for one tenant, key and upload opens for another.
"""

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_KEY_LENGTH = 32


def floe_aad(core: bytes) -> bytes:
    """FLOE's AAD for the object with this core, exactly as stored."""
    return b"keystow/v1/object\0" + core


def metadata_key(data_key: bytes, floe_iv: bytes) -> bytes:
    """The AES-256 key of an object's metadata."""
    return _expand(data_key, b"keystow/v1/metadata", floe_iv)


def footer_key(data_key: bytes, floe_iv: bytes) -> bytes:
    """The AES-256 key of an object's footer."""
    return _expand(data_key, b"keystow/v1/footer", floe_iv)


def resume_token_key(data_key: bytes, floe_iv: bytes) -> bytes:
    """The AES-256 key of the resume tokens of an object on its way."""
    return _expand(data_key, b"keystow/v1/resume-token", floe_iv)


def checkpoint_key(data_key: bytes, salt: bytes) -> bytes:
    """The AES-256 key of one checkpoint token; ``salt`` is 32 fresh random bytes."""
    return _expand(data_key, b"keystow/v1/checkpoint", salt)


def _expand(data_key: bytes, label: bytes, salt: bytes) -> bytes:
    return HKDFExpand(SHA384(), _KEY_LENGTH, label + b"\0" + salt).derive(data_key)
