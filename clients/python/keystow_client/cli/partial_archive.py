"""An archive file under way, of which another process can go on if this one dies.

FILE.keystow-part holds what has come, FILE.keystow-checkpoint how to go on after its last checkpoint. FILE itself
appears once it is whole. The order makes it safe: bytes are on the disk before the checkpoint that covers them is.
"""

import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import FileIO
from pathlib import Path

from keystow_client.cli.state import StateError, locked, open_own, read_state, remove_state, write_state
from keystow_client.export_models import BEGINNING, ErrorPolicy, ExportCheckpoint
from keystow_client.sinks import permissions_to_keep, publish

_FIELDS = frozenset({"selection", "archive_size", "crc32c", "checkpoint_token"})


@dataclass(frozen=True, slots=True)
class Selection:
    """What must be the same for an export to be continued."""

    tenant: str
    prefix: str
    keys_sha256: str  # of the keys that are named, in their order; empty without them
    on_error: str

    @classmethod
    def of(cls, tenant: str, prefix: str, keys: Sequence[str] | None, on_error: ErrorPolicy) -> "Selection":
        """Of a command."""
        named = "" if keys is None else sha256(b"".join(key.encode() + b"\n" for key in keys)).hexdigest()
        return cls(tenant, prefix, named, on_error.value)

    def __str__(self) -> str:
        """As it is written."""
        keys = " with certain --keys-from" if self.keys_sha256 else ""
        return f"{self.tenant}:{self.prefix}{keys} with --on-error {self.on_error}"


class PartialArchive:
    """See the module. All methods block, and raise OSError. ``checkpoint`` is where to go on in ``file``."""

    def __init__(self, path: Path, selection: Selection, *, overwrite: bool) -> None:
        """Nothing is touched before ``begin`` or ``go_on``. Without ``overwrite`` FILE must not be there."""
        self.part = path.with_name(f"{path.name}.keystow-part")
        self.checkpoint = BEGINNING
        self._path = path
        self._state = path.with_name(f"{path.name}.keystow-checkpoint")
        self._selection = selection
        self._overwrite = overwrite
        self._file: FileIO | None = None

    @property
    def file(self) -> FileIO:
        """The part, open for reading and writing, for this process alone."""
        if self._file is None:
            raise ValueError("begin or go on first")
        return self._file

    def begin(self) -> None:
        """Anew. Raises StateError if there is an unfinished export, unless it may be overwritten as well."""
        permissions = permissions_to_keep(self._path, overwrite=self._overwrite)
        try:
            if self._overwrite:
                self._remove_part()
            self._file = locked(self.part.open("x+b", buffering=0), self.part)
        except FileExistsError:
            raise StateError(
                f"{self.part} is of an unfinished export: --continue goes on with it, --force begins anew"
            ) from None
        if permissions is not None:
            self.part.chmod(permissions)
        self.keep(BEGINNING)

    def _remove_part(self) -> None:
        """Unless another process writes to it. What is no part of one's own making is not opened."""
        if not self.part.is_symlink() and self.part.exists():
            with locked(FileIO(open_own(self.part, os.O_RDWR), "r+"), self.part):
                self.part.unlink()
        self.part.unlink(missing_ok=True)

    def go_on(self) -> None:
        """With what another process has left. Raises StateError if that is nothing, or of another selection."""
        permissions_to_keep(self._path, overwrite=self._overwrite)
        try:
            self._file = locked(FileIO(open_own(self.part, os.O_RDWR), "r+"), self.part)
        except FileNotFoundError:
            raise StateError(f"there is no unfinished export to {self._path}: leave --continue out") from None
        if os.fstat(self._file.fileno()).st_nlink > 1:  # a process died between two steps of publish
            raise StateError(f"{self._path} is whole: remove {self.part}")
        state = read_state(self._state, _FIELDS)
        if state is None:
            raise StateError(f"{self._state} is missing, without which {self.part} is of no use: --force begins anew")
        begun = Selection(**state["selection"])
        if begun != self._selection:
            raise StateError(
                f"{self.part} is an unfinished export of {begun}: continue it with the same, or --force begins anew"
            )
        self.checkpoint = ExportCheckpoint(b64decode(state["checkpoint_token"]), state["archive_size"], state["crc32c"])

    def keep(self, checkpoint: ExportCheckpoint) -> None:
        """A checkpoint whose bytes were all written."""
        os.fsync(self.file.fileno())
        write_state(
            self._state,
            {
                "selection": asdict(self._selection),
                "archive_size": checkpoint.archive_size,
                "crc32c": checkpoint.crc32c,
                "checkpoint_token": b64encode(checkpoint.checkpoint_token).decode(),
            },
        )

    def commit(self) -> None:
        """The archive is whole: FILE appears. Raises FileExistsError if the name was taken meanwhile."""
        os.fsync(self.file.fileno())
        publish(self.part, self._path, overwrite=self._overwrite)
        remove_state(self._state)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to go on with."""
        return os.fstat(self.file.fileno()).st_size == 0

    def close(self) -> None:
        """Leave what there is to another process, or nothing at all."""
        if self._file is not None:
            if self.is_empty:
                self.part.unlink(missing_ok=True)
                remove_state(self._state)
            self._file.close()
