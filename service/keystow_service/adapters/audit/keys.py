"""The audit log's two secrets: the key that signs its checkpoints, and the one under which object keys are hashed.

The promise: both are files that only the server's user can read; each is made on first use, whole or not at all,
unless the operator named one. They are two, so that whoever may look for an object's name cannot sign.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from keystow_service.adapters.posix_files import FileLockTimeoutError, create_private_file, file_lock

log = structlog.get_logger(__name__)

_SECRET_SIZE = 32
_MAX_FILE_SIZE = 16 * 1024
_LOCK = ".lock"


class AuditError(Exception):
    """The audit log cannot be used. The message is the operator's: it names files."""


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """Where the log is, and its keys if they are elsewhere than beside it."""

    directory: Path
    signing_key: Path | None = None
    hash_key: Path | None = None


class SigningKey:
    """Ed25519 (RFC 8032)."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key()

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(message)


class ObjectHashes:
    """HMAC-SHA256 of object keys, under a key of each tenant's own.

    A tenant's key can be given to the tenant: it finds the tenant's objects, and tells nothing of another's.
    """

    __slots__ = ("_secret", "tenant_key")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.tenant_key = lru_cache(maxsize=1024)(self._tenant_key)  # 32 bytes; one for every line

    def _tenant_key(self, tenant_id: str) -> bytes:
        return hmac.digest(self._secret, tenant_id.encode(), "sha256")

    def hash(self, tenant_id: str, object_key: str) -> str:
        """In hexadecimal."""
        return hmac.digest(self.tenant_key(tenant_id), object_key.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """Both."""

    signing: SigningKey
    hashes: ObjectHashes

    @classmethod
    def ensure(cls, files: AuditFiles) -> Self:
        """Read them; those that belong beside the log are made if they are missing. Blocks. Raises AuditError."""
        try:
            files.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(files.directory / _LOCK):
                _create_if_missing(files, "signing.key", files.signing_key, _new_signing_key)
                _create_if_missing(files, "object-hash.key", files.hash_key, lambda: os.urandom(_SECRET_SIZE))
        except FileLockTimeoutError as error:
            raise AuditError(str(error)) from None
        except OSError as error:
            raise AuditError(f"The audit log in {files.directory} cannot be written ({error.strerror}).") from None
        return cls(load_signing_key(files), load_object_hashes(files))


def check_keys(files: AuditFiles) -> None:
    """Those that the operator named. Raises AuditError."""
    if files.signing_key:
        load_signing_key(files)
    if files.hash_key:
        load_object_hashes(files)


def load_signing_key(files: AuditFiles) -> SigningKey:
    """Raises AuditError."""
    path = files.signing_key or files.directory / "signing.key"
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise AuditError(
            f"The audit log's signing key {path} is no Ed25519 private key in PEM form, without a password. "
            f"Make one with: openssl genpkey -algorithm ed25519 -out {path}"
        )
    return SigningKey(key)


def load_object_hashes(files: AuditFiles) -> ObjectHashes:
    """Raises AuditError."""
    path = files.hash_key or files.directory / "object-hash.key"
    secret = _read(path)
    if len(secret) != _SECRET_SIZE:
        raise AuditError(
            f"The audit log's hash key {path} must hold exactly {_SECRET_SIZE} random bytes. "
            f"Make one with: head -c {_SECRET_SIZE} /dev/urandom > {path}"
        )
    return ObjectHashes(secret)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises AuditError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise AuditError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise AuditError(
            f"{path} is no Ed25519 public key in PEM form, as `keystow-service audit public-key` prints it."
        )
    return key


def public_pem(key: Ed25519PublicKey) -> str:
    """As others read it: SubjectPublicKeyInfo (RFC 8410)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: Ed25519PublicKey) -> str:
    """Tells keys apart: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _create_if_missing(files: AuditFiles, name: str, elsewhere: Path | None, content: Callable[[], bytes]) -> None:
    path = files.directory / name
    if elsewhere is None and not path.exists():
        create_private_file(path, content())
        log.info("audit_key_created", file=str(path))


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise AuditError(f"The audit log's key {path} cannot be opened ({error.strerror}).") from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode & 0o777
        if mode & 0o077:
            raise AuditError(
                f"The audit log's key {path} has mode {mode:04o}. Only its owner may read it: chmod 600 {path}"
            )
        return file.read(_MAX_FILE_SIZE)
