"""Where the chains of a directory's other writers end, so that each writer's checkpoints bear witness of the others.

A chain whose last lines are cut off looks like one whose writer was killed; its successor knows better.

The promise: whatever stands among the files, it keeps no writer from going on, nor from witnessing the rest.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from keystow_service.adapters.audit.file import release
from keystow_service.adapters.audit.line import FILE_NAME, MAX_LINE, End, digest, parse
from keystow_service.adapters.audit.running import running_writers

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
        self._told: dict[str, End] = {}

    def moved(self) -> Sequence[End]:
        """The ends that are not told yet as they are now."""
        found = []
        # In this order: who has files, but does not run, writes no more, so that the end found in them is final.
        files = self._files()
        running = running_writers(self._directory, {writer for writer, _ in files if not self._known_final(writer)})
        for writer, names in files:
            known = self._known.get(writer, _Seen())
            with suppress(OSError):  # one that cannot be read hides no other
                now = self._known[writer] = self._look(writer, names, known, final=writer not in running)
                if now.end is not None and now.end != self._told.get(writer):
                    self._told[writer] = now.end
                    found.append(now.end)
        return found

    def forget(self) -> None:
        """What was told: the next time all ends are told again."""
        self._told.clear()

    def release(self) -> None:
        """Give back the disk space that killed writers had reserved."""
        for _, names in self._files():
            with suppress(OSError):  # it lives
                release(self._directory / names[-1])

    def _known_final(self, writer: str) -> bool:
        """No writer comes back, so nobody need ask again."""
        end = self._known.get(writer, _Seen()).end
        return end is not None and end.final

    def _look(self, writer: str, names: Sequence[str], known: _Seen, *, final: bool) -> _Seen:
        name = names[-1]
        with open(self._directory / name, "rb", opener=_at_once) as file:
            size = os.fstat(file.fileno()).st_size
            end = known.end if (name, size) == (known.file, known.size) else _end_in(file, size, writer)
        if end is None and len(names) > 1:  # a file may have been begun, but nothing written to it
            with open(self._directory / names[-2], "rb", opener=_at_once) as file:
                end = _end_in(file, os.fstat(file.fileno()).st_size, writer)
        return _Seen(name, size, replace(end, final=final) if end else None)

    def _files(self) -> Sequence[tuple[str, Sequence[str]]]:
        """Of each of the newest writers, oldest first."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(path.name for path in self._directory.iterdir()):
            match = FILE_NAME.fullmatch(name)
            if match is not None and match["writer"] != self._writer:
                found[match["writer"]].append(name)
        return list(found.items())[-_WITNESSED:]


def _at_once(path: str, flags: int) -> int:
    """Opening a pipe would wait for whoever writes to it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _end_in(file: BinaryIO, size: int, writer: str) -> End | None:
    """After the last whole line, if this writer wrote it."""
    file.seek(max(0, size - 2 * MAX_LINE))
    *lines, _ = file.read(2 * MAX_LINE).split(b"\n")
    if not lines:
        return None
    with suppress(ValueError):
        entry = parse(lines[-1])
        if entry.writer == writer:
            return End(writer, entry.seq, digest(lines[-1]))
    return None
