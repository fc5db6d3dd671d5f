"""Where the chains of a directory's other writers end, so that each writer's checkpoints bear witness of the others.

A chain whose last lines are cut off looks like one whose writer was killed; its successor knows better.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from keystow_service.adapters.audit.file import release
from keystow_service.adapters.audit.line import FILE_NAME, MAX_LINE, End, digest, parse

# The newest ones. Each of them has witnessed those before it, so that no chain is forgotten.
_WITNESSED = 64


class OtherWriters:
    """Blocks everywhere; raises OSError."""

    def __init__(self, directory: Path, writer: str) -> None:
        """``writer`` is the one that looks."""
        self._directory = directory
        self._writer = writer
        self._known: dict[str, tuple[str, int, End | None]] = {}  # file, its size, the end found in it

    def moved(self) -> Sequence[End]:
        """The ends that have changed since the last time."""
        found = []
        for writer, name in self._last_files():
            size = (self._directory / name).stat().st_size
            known_name, known_size, known_end = self._known.get(writer, ("", 0, None))
            if (name, size) == (known_name, known_size):
                continue
            # A file may have been begun, but nothing written to it: the end is where it was.
            end = _end_of(self._directory / name, size) or known_end
            self._known[writer] = name, size, end
            if end is not None and end != known_end:
                found.append(end)
        return found

    def release(self) -> None:
        """Give back the disk space that killed writers had reserved."""
        for _, name in self._last_files():
            with suppress(OSError):  # it lives
                release(self._directory / name)

    def _last_files(self) -> Iterator[tuple[str, str]]:
        """Of each of the newest writers, oldest first."""
        last: dict[str, str] = {}
        for name in sorted(path.name for path in self._directory.iterdir()):
            match = FILE_NAME.fullmatch(name)
            if match is not None and match["writer"] != self._writer:
                last[match["writer"]] = name
        yield from list(last.items())[-_WITNESSED:]


def _end_of(path: Path, size: int) -> End | None:
    """After the last whole line."""
    with path.open("rb") as file:
        file.seek(max(0, size - 2 * MAX_LINE))
        *lines, _ = file.read(2 * MAX_LINE).split(b"\n")
    if not lines:
        return None
    with suppress(ValueError):
        entry = parse(lines[-1])
        return End(entry.writer, entry.seq, digest(lines[-1]))
    return None
