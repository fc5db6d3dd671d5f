"""Where the chains of a directory's other writers end, so that each writer's checkpoints bear witness of the others.

A chain whose last lines are cut off looks like one whose writer was killed; its successor knows better.

The promise: whatever stands among the files, it keeps no writer from going on, nor from witnessing the rest.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keystow_service.adapters.audit.file import release
from keystow_service.adapters.audit.line import FILE_NAME, MAX_LINE, End, digest, parse

# The newest ones. Each of them has witnessed those before it, so that no chain is forgotten.
_WITNESSED = 64


@dataclass(frozen=True, slots=True)
class _Seen:
    """A chain's last file, its size, and the end found in it."""

    file: str = ""
    size: int = 0
    end: End | None = None


class OtherWriters:
    """Blocks everywhere; raises OSError."""

    def __init__(self, directory: Path, writer: str) -> None:
        """``writer`` is the one that looks."""
        self._directory = directory
        self._writer = writer
        self._known: dict[str, _Seen] = {}

    def moved(self) -> Sequence[End]:
        """The ends that have changed since the last time."""
        found = []
        for writer, name in self._last_files():
            known = self._known.get(writer, _Seen())
            with suppress(OSError):  # one that cannot be read hides no other
                now = self._known[writer] = self._look(name, known)
                if now.end is not None and now.end != known.end:
                    found.append(now.end)
        return found

    def release(self) -> None:
        """Give back the disk space that killed writers had reserved."""
        for _, name in self._last_files():
            with suppress(OSError):  # it lives
                release(self._directory / name)

    def _look(self, name: str, known: _Seen) -> _Seen:
        with open(self._directory / name, "rb", opener=_at_once) as file:
            size = os.fstat(file.fileno()).st_size
            if (name, size) == (known.file, known.size):
                return known
            # A file may have been begun, but nothing written to it: the end is where it was.
            return _Seen(name, size, _end_in(file, size) or known.end)

    def _last_files(self) -> Iterator[tuple[str, str]]:
        """Of each of the newest writers, oldest first."""
        last: dict[str, str] = {}
        for name in sorted(path.name for path in self._directory.iterdir()):
            match = FILE_NAME.fullmatch(name)
            if match is not None and match["writer"] != self._writer:
                last[match["writer"]] = name
        yield from list(last.items())[-_WITNESSED:]


def _at_once(path: str, flags: int) -> int:
    """Opening a pipe would wait for whoever writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _end_in(file: BinaryIO, size: int) -> End | None:
    """After the last whole line."""
    file.seek(max(0, size - 2 * MAX_LINE))
    *lines, _ = file.read(2 * MAX_LINE).split(b"\n")
    if not lines:
        return None
    with suppress(ValueError):
        entry = parse(lines[-1])
        return End(entry.writer, entry.seq, digest(lines[-1]))
    return None
