"""Small files by which a later process goes on with what this one has begun.

They hold tokens and names, so they are for their owner only. One is replaced as a whole and durably: whenever the
process or the machine dies, the file is there as it was or as it is to be. Whoever writes one holds a lock.
"""

import errno
import json
import os
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from io import FileIO
from pathlib import Path
from typing import Any

from keystow_client.sinks import sync_directory

if sys.platform != "win32":
    import fcntl

_VERSION = 1


class StateError(Exception):
    """What another process has left, or has not left, does not allow to go on; the message says what to do."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file. Blocks; raises OSError."""
    temporary = _temporary(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump({"version": _VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_state(path: Path, fields: AbstractSet[str]) -> Mapping[str, Any] | None:
    """What was written, with these fields; None if there is nothing. Blocks; raises StateError for anything else."""
    try:
        state = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        state = None
    if not isinstance(state, dict) or state.pop("version", None) != _VERSION or state.keys() != fields:
        raise StateError(f"{path} cannot be read, or was not written by this version: remove it to begin anew")
    return state


def remove_state(path: Path) -> None:
    """Leave nothing of it, even where a process died while it wrote."""
    path.unlink(missing_ok=True)
    _temporary(path).unlink(missing_ok=True)


def locked(file: FileIO, name: Path) -> FileIO:
    """The file, from which other processes are kept away while it is open. Raises StateError if one was first."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise StateError(f"another process is at work on {name}: wait for it, or end it") from None
    return file


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
