"""The secret bytes of a KMS key, with every version it has had, and the ciphertexts under them."""

import json
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from servers.kms.refusal import Refusal

_KEY_ID_SIZE = 36  # of a UUID as text, and of mrk- with 32 hex digits
_NONCE_SIZE = 12
_HEAD_SIZE = _KEY_ID_SIZE + 1 + _NONCE_SIZE


class Material:
    """Shared by a multi-Region key and its replicas, so that each decrypts what another encrypted."""

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id.encode()
        self._versions = [os.urandom(32)]

    @property
    def rotations(self) -> int:
        """How often it was rotated."""
        return len(self._versions) - 1

    def rotate(self) -> None:
        """New bytes for what is encrypted from now on."""
        self._versions.append(os.urandom(32))

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Key id, version, nonce, ciphertext."""
        nonce = os.urandom(_NONCE_SIZE)
        sealed = AESGCM(self._versions[-1]).encrypt(nonce, plaintext, _aad(context))
        return self._key_id + bytes([self.rotations]) + nonce + sealed

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Raises Refusal. AWS says nothing of what is wrong."""
        version = ciphertext[_KEY_ID_SIZE]
        nonce, sealed = ciphertext[_KEY_ID_SIZE + 1 : _HEAD_SIZE], ciphertext[_HEAD_SIZE:]
        try:
            return AESGCM(self._versions[version]).decrypt(nonce, sealed, _aad(context))
        except (IndexError, InvalidTag):
            raise Refusal("InvalidCiphertextException", None) from None


def key_id_of(ciphertext: bytes) -> str:
    """The id of the key that a ciphertext is under. Raises Refusal for what is none."""
    if len(ciphertext) <= _HEAD_SIZE:
        raise Refusal("InvalidCiphertextException", None)
    try:
        return ciphertext[:_KEY_ID_SIZE].decode("ascii")
    except UnicodeDecodeError:
        raise Refusal("InvalidCiphertextException", None) from None


def _aad(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True).encode()
