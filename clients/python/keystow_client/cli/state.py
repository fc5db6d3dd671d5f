"""Small files by which a later process goes on with what this one has begun.

They hold tokens and names, so they are for their owner only. One is replaced as a whole and durably: whenever the
process or the machine dies, the file is there as it was or as it is to be. Whoever writes one holds a lock.

They may lie where others can write as well, such as /tmp. So nothing that others have put there is followed, written
into or believed: who says how an upload goes on says what is stored.
"""

import errno
import json
import os
import stat
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from io import FileIO
from pathlib import Path
from typing import Any

from keystow_client.sinks import sync_directory

if sys.platform != "win32":
    import fcntl

    _AS_IT_IS = os.O_NOFOLLOW | os.O_NONBLOCK  # links are not followed, pipes not waited for
else:
    _AS_IT_IS = 0

_VERSION = 1


class StateError(Exception):
    """What another process has left, or has not left, does not allow to go on; the message says what to do."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file. Blocks; raises OSError."""
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # which follows no link either
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
        with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
            state = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        state = None
    if not isinstance(state, dict) or state.pop("version", None) != _VERSION or state.keys() != fields:
        raise StateError(f"{path} cannot be read, or was not written by this version: remove it to begin anew")
    return state


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a file that is there. Blocks; raises OSError, StateError for a link and for what others own.

    Whoever owns the directory counts as oneself: that user could exchange the file anyway, and network file systems
    give all files the owner that they want.
    """
    if path.is_symlink():  # for the message; the flag is what keeps from following it
        raise StateError(f"{path} is a link: remove it to begin anew")
    descriptor = os.open(path, flags | _AS_IT_IS)
    status = os.fstat(descriptor)
    if sys.platform != "win32" and not (
        stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), path.parent.stat().st_uid)
    ):
        os.close(descriptor)
        raise StateError(f"{path} is no file of your own: remove it to begin anew")
    return descriptor


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
