"""Which writers of a directory run: each has a lock on its newest file, from its start to its end."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from keystow_service.adapters.audit.file import is_written
from keystow_service.adapters.audit.line import FILE_NAME


def running_writers(directory: Path) -> frozenset[str]:
    """As far as locks are seen here: of a copy, or from another machine, nobody. Raises OSError."""
    newest = _newest_files(directory)
    while True:
        running = set()
        for writer, name in newest.items():
            with suppress(FileNotFoundError):  # moved away just now
                if is_written(directory / name):
                    running.add(writer)
        before, newest = newest, _newest_files(directory)
        if newest == before:  # else a writer may have gone on to another file meanwhile
            return frozenset(running)


def _newest_files(directory: Path) -> Mapping[str, str]:
    names = sorted(path.name for path in directory.iterdir())
    return {match["writer"]: name for name in names if (match := FILE_NAME.fullmatch(name))}
