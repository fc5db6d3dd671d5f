"""Which writers of a directory run: at every moment, from start to end, each has a lock on one of its files."""

import time
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from keystow_service.adapters.audit.file import is_written
from keystow_service.adapters.audit.line import FILE_NAME

_PAUSE = 0.01  # seconds; between making its first file and locking it a writer takes microseconds


def running_writers(directory: Path, among: Container[str] | None = None) -> frozenset[str]:
    """Of all, or of these, as far as locks are seen here: of a copy, or from another machine, none. Raises OSError."""
    running: set[str] = set()
    before: Mapping[str, Sequence[str]] = {}
    while True:
        files = {
            writer: names
            for writer, names in _files(directory).items()
            if writer not in running and (among is None or writer in among)
        }
        running |= {writer for writer, names in files.items() if _has_lock(directory, names)}
        quiet = {writer: names for writer, names in files.items() if writer not in running}
        if quiet == before:
            return frozenset(running)
        before = quiet  # a writer may just have begun, or gone on to another file: only two looks say that one ended
        time.sleep(_PAUSE)


def _has_lock(directory: Path, names: Sequence[str]) -> bool:
    for name in names:
        with suppress(OSError):  # whatever one of them is, others may be locked
            if is_written(directory / name):
                return True
    return False


def _files(directory: Path) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(path.name for path in directory.iterdir()):
        if match := FILE_NAME.fullmatch(name):
            found[match["writer"]].append(name)
    return found
