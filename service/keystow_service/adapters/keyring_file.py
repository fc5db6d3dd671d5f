"""The local keyring's file: which keys stand in it, and how it is read and replaced.

The promise: readers see one whole state or the next, also after a crash; writers of all processes take turns; what is
not exactly a keyring is refused rather than guessed at; and the material of a key past its deletion date goes with the
next write.
"""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from keystow_service.adapters.posix_files import FileLockTimeoutError, file_lock, sync_directory
from keystow_service.adapters.root_key import KeyringError, create_root_key
from keystow_service.errors import KmsKeyArnInvalidError
from keystow_service.model import KeyArn, KeyState
from keystow_service.ports import Clock

_T = TypeVar("_T")

_FORMAT = 1
_STATES = (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_DELETION)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key. ``material`` holds its versions, oldest first, each wrapped under the root key; the last one wraps."""

    arn: KeyArn
    state: KeyState
    tenants: tuple[str, ...]  # those it may serve; "*" is any
    description: str
    create_time: datetime
    material: tuple[bytes, ...]
    provider: bool = False  # made by the service for tenants that bring no key
    deletion_time: datetime | None = None

    def expired(self, now: datetime) -> bool:
        """Past its deletion date: it no longer exists."""
        return self.deletion_time is not None and self.deletion_time <= now


Keyring: TypeAlias = Mapping[str, KeyRecord]  # by ARN, oldest first

FileIdentity: TypeAlias = tuple[int, int, int]  # inode, mtime in ns, size: differ for any two states of the file


class KeyringFile:
    """The file and its lock. Everything here blocks, save ``identity``, which is one stat."""

    def __init__(self, path: Path, root_key_path: Path, clock: Clock) -> None:
        self.path = path
        self.root_key_path = root_key_path
        self._clock = clock

    def identity(self) -> FileIdentity:
        """Raises KeyringError if there is no file."""
        try:
            return _identity(os.stat(self.path))  # noqa: PTH116 - half the cost of Path.stat, on every use of a key
        except OSError as error:
            raise self._unreadable(error) from None

    def load(self) -> tuple[FileIdentity, Keyring]:
        """Raises KeyringError."""
        try:
            with self.path.open("rb") as file:
                identity = _identity(os.fstat(file.fileno()))
                text = file.read()
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            return identity, _decode(text)
        except (ValueError, KeyError, TypeError, KmsKeyArnInvalidError):
            raise KeyringError(
                f"The keyring {self.path} is not a keyring that this release can read. Restore it from a backup."
            ) from None

    def update(self, change: Callable[[Keyring], tuple[Keyring, _T]]) -> _T:
        """Replace what stands by what ``change`` makes of it, and return its answer.

        Keys past their deletion date are destroyed first, whatever ``change`` says. Raises KeyringError, and what
        ``change`` raises.
        """
        with self._exclusively():
            _, standing = self.load()
            now = self._clock.now()
            living = {arn: key for arn, key in standing.items() if not key.expired(now)}
            if living != standing:
                self._write(living)
            changed, answer = change(MappingProxyType(living))
            if changed != living:
                self._write(changed)
            return answer

    def create_if_missing(self) -> None:
        """Make an empty keyring with its root key on first use.

        The keyring comes first and the root key second. So a root key without a keyring, or a keyring with keys but
        without a root key, is no first use but a loss, and refused. Raises KeyringError.
        """
        with self._exclusively(make_directory=True):
            if not self.path.exists():
                if self.root_key_path.exists():
                    raise KeyringError(
                        f"There is a root key file {self.root_key_path}, but the keyring {self.path} is missing. "
                        "Restore it from a backup, or remove the root key file to begin with an empty keyring."
                    )
                self._write({})
            if not self.root_key_path.exists():
                _, keyring = self.load()
                if keyring:
                    raise KeyringError(
                        f"The keyring {self.path} has keys, but its root key file {self.root_key_path} is missing. "
                        "Restore it: without it the keys are lost."
                    )
                create_root_key(self.root_key_path)

    @contextmanager
    def _exclusively(self, *, make_directory: bool = False) -> Iterator[None]:
        try:
            if make_directory:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with file_lock(self.path.with_name(self.path.name + ".lock")):
                yield
        except FileLockTimeoutError as error:
            raise KeyringError(str(error)) from None
        except OSError as error:
            raise KeyringError(f"The keyring {self.path} cannot be written ({error.strerror}).") from None

    def _write(self, keyring: Keyring) -> None:
        """Durably replace the file. Under the lock, so that the temporary name is free, also after a crash."""
        new = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encode(keyring))
            file.flush()
            modified = self._next_modification_time()
            os.utime(descriptor, ns=(modified, modified))
            os.fsync(descriptor)
        new.replace(self.path)
        sync_directory(self.path.parent)

    def _next_modification_time(self) -> int:
        """Always later than the last: inodes are reused, sizes repeat, and the kernel stamps files by a slow clock."""
        try:
            return max(time.time_ns(), self.path.stat().st_mtime_ns + 1)
        except FileNotFoundError:
            return time.time_ns()

    def _unreadable(self, error: OSError) -> KeyringError:
        return KeyringError(f"The keyring {self.path} cannot be read ({error.strerror}).")


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_ino, status.st_mtime_ns, status.st_size


# --- JSON -------------------------------------------------------------------------------------------------------------


def _encode(keyring: Keyring) -> bytes:
    keys = [
        {
            "arn": key.arn.text,
            "state": key.state.value,
            "deletion_time": None if key.deletion_time is None else key.deletion_time.isoformat(),
            "tenants": list(key.tenants),
            "description": key.description,
            "provider": key.provider,
            "create_time": key.create_time.isoformat(),
            "material": [base64.b64encode(wrapped).decode() for wrapped in key.material],
        }
        for key in keyring.values()
    ]
    return json.dumps({"format": _FORMAT, "keys": keys}, indent=2).encode() + b"\n"


def _decode(text: bytes) -> Keyring:
    """Raises ValueError, KeyError, TypeError, KmsKeyArnInvalidError."""
    match json.loads(text):
        case {"format": int(number), "keys": list(values), **rest} if number == _FORMAT and not rest:
            keyring = {key.arn.text: key for key in map(_decode_key, values)}
        case _:
            raise ValueError("another format")
    if len(keyring) != len(values):
        raise ValueError("an ARN stands twice")
    return MappingProxyType(keyring)


def _decode_key(value: Any) -> KeyRecord:
    match value:
        case {
            "arn": str(arn),
            "state": str(state),
            "deletion_time": str() | None as deletion_time,
            "tenants": [*tenants],
            "description": str(description),
            "provider": bool(provider),
            "create_time": str(create_time),
            "material": [_, *_] as material,
            **rest,
        } if not rest:
            key = KeyRecord(
                arn=KeyArn.parse(arn),
                state=KeyState(state),
                tenants=tuple(_text(tenant) for tenant in tenants),
                description=description,
                create_time=_time(create_time),
                material=tuple(base64.b64decode(_text(wrapped), validate=True) for wrapped in material),
                provider=provider,
            )
        case _:
            raise ValueError("a key has other fields")
    if deletion_time is not None:
        key = replace(key, deletion_time=_time(deletion_time))
    if key.state not in _STATES or (key.state is KeyState.PENDING_DELETION) != (key.deletion_time is not None):
        raise ValueError("state and deletion date contradict each other")
    UUID(key.arn.text.rpartition("/")[2])  # no multi-Region ids: wrapped data keys name their key by UUID
    return key


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _time(text: str) -> datetime:
    time_of_day = datetime.fromisoformat(text)
    if time_of_day.utcoffset() is None:
        raise ValueError("a time without an offset from UTC")
    return time_of_day
