"""The root key of the local keyring: 32 random bytes in a file of their own, under which all key material is wrapped.

The promise: whoever reads the keyring file alone learns no key, and the root key is never made anew over material that
an older one wrapped.
"""

import os
import struct
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystow_service.adapters.posix_files import create_private_file
from keystow_service.model import KeyArn

_SIZE = 32
_NONCE_SIZE = 12
_PURPOSE = b"keystow keyring material v1\0"


class KeyringError(Exception):
    """The keyring cannot be used, or a change to it is refused. The message is the operator's: it names files."""


class RootKey:
    """Wraps key material with AES-256-GCM, bound to the key and version that it belongs to.

    Nonces are random: at 96 bits, 2**32 wrappings keep the chance of a repeat under 2**-32 (NIST SP 800-38D, 8.3).
    """

    __slots__ = ("_aead",)

    def __init__(self, secret: bytes) -> None:
        self._aead = AESGCM(secret)

    def wrap(self, material: bytes, arn: KeyArn, version: int) -> bytes:
        """Nonce ‖ ciphertext ‖ tag."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._aead.encrypt(nonce, material, _aad(arn, version))

    def unwrap(self, wrapped: bytes, arn: KeyArn, version: int) -> bytes:
        """Raises KeyringError: the material is damaged, or another root key wrapped it."""
        try:
            return self._aead.decrypt(wrapped[:_NONCE_SIZE], wrapped[_NONCE_SIZE:], _aad(arn, version))
        except (InvalidTag, ValueError):
            raise KeyringError(
                f"Version {version} of {arn} does not open under the root key: the keyring is damaged, or the root key "
                "file is another keyring's. Restore both from one backup."
            ) from None


def load_root_key(path: Path) -> RootKey:
    """Raises KeyringError: missing, of the wrong size, or open to others than its owner."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyringError(
            f"The root key file {path} cannot be opened ({error.strerror}). Restore it: without it the keyring's keys "
            "are lost."
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode & 0o777
        if mode & 0o077:
            raise KeyringError(
                f"The root key file {path} has mode {mode:04o}. Only its owner may read it: chmod 600 {path}"
            )
        secret = file.read(_SIZE + 1)
    if len(secret) != _SIZE:
        raise KeyringError(f"The root key file {path} is damaged: it must hold exactly {_SIZE} bytes. Restore it.")
    return RootKey(secret)


def create_root_key(path: Path) -> None:
    """Make the file, durable and whole or not at all. Raises FileExistsError, OSError."""
    create_private_file(path, os.urandom(_SIZE))


def _aad(arn: KeyArn, version: int) -> bytes:
    return _PURPOSE + arn.text.encode() + struct.pack(">I", version)
