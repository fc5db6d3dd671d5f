"""Small files by which a later process goes on with what this one has begun.

They hold tokens and names, so they are for their owner only. One is replaced as a whole and durably: whenever the
process or the machine dies, the file is there as it was or as it is to be.
"""

import json
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from keystow_client.sinks import sync_directory

_VERSION = 1


class StateError(Exception):
    """What another process has left, or has not left, does not allow to go on; the message says what to do."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file. Blocks; raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
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
