"""The local keyring as a KeyService: data keys wrapped under keys that stand in a file of this machine.

The promise: the same states, refusals and life cycle as AWS KMS, seen without a restart; and a keyring that cannot be
read is no permission to go on with what was read before.

A wrapped data key is: format (1 byte, 1), UUID of the key (16), version of its material (4, big endian), nonce (12),
ciphertext (32), tag (16). It is AES-256-GCM under that version of the material; the associated data is what stands
before the nonce, then the encryption context: number of pairs (4), and of each pair in the order of the keys' bytes the
key's size (4), key, the value's size (4), value. Nonces are random; leases keep the number of data keys per material
far below 2**32.
"""

import asyncio
import os
import struct
from pathlib import Path
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystow_service.adapters.keyring_admin import ANY_TENANT
from keystow_service.adapters.keyring_file import FileIdentity, KeyRecord, Keyring, KeyringFile
from keystow_service.adapters.root_key import KeyringError, RootKey, load_root_key
from keystow_service.errors import (
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsUnavailableError,
    WrappedKeyInvalidError,
)
from keystow_service.model import DataKey, KeyArn, KeyDescription, KeyOrigin, KeyState
from keystow_service.ports import TENANT_CONTEXT, Clock, EncryptionContext

log = structlog.get_logger(__name__)

_FORMAT = 1
_PREFIX = struct.Struct(">B16sI")
_NONCE_SIZE = 12
_DATA_KEY_SIZE = 32
_TAG_SIZE = 16
_WRAPPED_SIZE = _PREFIX.size + _NONCE_SIZE + _DATA_KEY_SIZE + _TAG_SIZE


def open_local_keyring(path: Path, root_key_path: Path, clock: Clock) -> "LocalKeyring":
    """Read the keyring, made empty on first use, and prove that the root key opens all of it. Blocks.

    Raises KeyringError, for the operator.
    """
    file = KeyringFile(path, root_key_path, clock)
    file.create_if_missing()
    root_key = load_root_key(root_key_path)
    _, keyring = file.load()
    for key in keyring.values():
        for version, wrapped in enumerate(key.material, start=1):
            root_key.unwrap(wrapped, key.arn, version)
    return LocalKeyring(file, root_key, clock)


class LocalKeyring:
    """A KeyService. The keyring is read again whenever its file is another one than last time."""

    def __init__(self, file: KeyringFile, root_key: RootKey, clock: Clock) -> None:
        self._file = file
        self._root_key = root_key
        self._clock = clock
        self._read: tuple[FileIdentity, Keyring] = ((0, 0, 0), {})

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        key = await self._usable(arn, context)
        version = len(key.material)
        prefix = _PREFIX.pack(_FORMAT, _uuid(arn), version)
        nonce, plaintext = os.urandom(_NONCE_SIZE), os.urandom(_DATA_KEY_SIZE)
        ciphertext = self._aead(key, version).encrypt(nonce, plaintext, prefix + _canonical(context))
        return DataKey(plaintext, prefix + nonce + ciphertext)

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """See ports.KeyService."""
        key = await self._usable(arn, context)
        if len(wrapped) != _WRAPPED_SIZE:
            raise _invalid(arn)
        prefix, nonce, ciphertext = (
            wrapped[: _PREFIX.size],
            wrapped[_PREFIX.size : _PREFIX.size + _NONCE_SIZE],
            wrapped[_PREFIX.size + _NONCE_SIZE :],
        )
        number, uuid, version = _PREFIX.unpack(prefix)
        if number != _FORMAT or uuid != _uuid(arn) or not 1 <= version <= len(key.material):
            raise _invalid(arn)
        aead = self._aead(key, version)
        try:
            plaintext = aead.decrypt(nonce, ciphertext, prefix + _canonical(context))
        except InvalidTag:
            raise _invalid(arn) from None
        return DataKey(plaintext, wrapped)

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """See ports.KeyService."""
        key = await self._key(arn)
        return KeyDescription(
            arn=key.arn,
            state=key.state,
            customer_managed=True,
            symmetric_encryption=True,
            origin=KeyOrigin.AWS_KMS,  # made here, as AWS makes its own
            multi_region=False,
            deletion_time=key.deletion_time,
        )

    async def _usable(self, arn: KeyArn, context: EncryptionContext) -> KeyRecord:
        """The key, if it may be used now. In the order of AWS: existence, permission, state."""
        key = await self._key(arn)
        tenant = context.get(TENANT_CONTEXT)
        if tenant is None or (tenant not in key.tenants and ANY_TENANT not in key.tenants):
            raise KmsAccessDeniedError(
                "The key does not serve this tenant: it is not among the tenants that the key was created for.",
                key_arn=arn.text,
                key_state=KeyState.ACCESS_DENIED.value,
            )
        if key.deletion_time is not None:
            raise KmsKeyPendingDeletionError(
                f"The key is scheduled for deletion on {key.deletion_time:%Y-%m-%d %H:%M} UTC. Until then its owner "
                "can cancel the deletion and enable the key; afterwards the data is unreadable for good.",
                key_arn=arn.text,
                key_state=key.state.value,
                deletion_time=key.deletion_time.isoformat(timespec="seconds"),
            )
        if key.state is not KeyState.ENABLED:
            raise KmsKeyDisabledError(
                "The key is disabled. Everything works again once its owner enables it.",
                key_arn=arn.text,
                key_state=key.state.value,
            )
        return key

    async def _key(self, arn: KeyArn) -> KeyRecord:
        key = (await self._keyring(arn)).get(arn.text)
        if key is not None and key.expired(self._clock.now()):
            await self._destroy_expired(arn)
            key = None
        if key is None:
            raise KmsKeyNotFoundError(
                "The key is deleted, or was never there.", key_arn=arn.text, key_state=KeyState.NOT_FOUND.value
            )
        return key

    async def _keyring(self, arn: KeyArn) -> Keyring:
        try:
            if self._file.identity() != self._read[0]:
                self._read = await asyncio.to_thread(self._file.load)
        except KeyringError as error:
            log.error("keyring.unusable", problem=str(error))  # noqa: TRY400 - the message says all, a traceback nothing
            raise _unavailable(arn) from None
        return self._read[1]

    async def _destroy_expired(self, arn: KeyArn) -> None:
        """Nobody may have written since the deletion date. If it fails, the key is refused all the same."""
        try:
            await asyncio.to_thread(self._file.update, lambda keyring: (keyring, None))
        except KeyringError as error:
            log.error("keyring.material_not_destroyed", key_arn=arn.text, problem=str(error))  # noqa: TRY400 - as above

    def _aead(self, key: KeyRecord, version: int) -> AESGCM:
        try:
            return AESGCM(self._root_key.unwrap(key.material[version - 1], key.arn, version))
        except KeyringError as error:
            log.error("keyring.unusable", problem=str(error))  # noqa: TRY400 - as above
            raise _unavailable(key.arn) from None


def _uuid(arn: KeyArn) -> bytes:
    return UUID(arn.text.rpartition("/")[2]).bytes


def _canonical(context: EncryptionContext) -> bytes:
    pairs = sorted((name.encode(), value.encode()) for name, value in context.items())
    sized = (struct.pack(">I", len(text)) + text for pair in pairs for text in pair)
    return struct.pack(">I", len(pairs)) + b"".join(sized)


def _invalid(arn: KeyArn) -> WrappedKeyInvalidError:
    return WrappedKeyInvalidError(
        "The data key does not open under the tenant's key: it is damaged, or belongs to another key or tenant.",
        key_arn=arn.text,
    )


def _unavailable(arn: KeyArn) -> KmsUnavailableError:
    return KmsUnavailableError(
        "The local keyring cannot be used. The service's log says what its operator has to repair.", key_arn=arn.text
    )
