"""Where an Export writes to. It goes on from a checkpoint by cutting off what was written after it.

What cannot be cut, such as a pipe or a file that is appended to, rewrites in place, as far as the Export is concerned.
"""

from typing import Protocol, cast

import google_crc32c

from keystow_client.errors import IntegrityError
from keystow_client.export_models import ExportCheckpoint
from keystow_client.sinks import FileSink, PathSink, Sink, SinkLike, appends, open_sink
from keystow_client.sources import Seekable

_BLOCK_SIZE = 1 << 20


class Cuttable(Seekable, Protocol):
    """A file object that can be cut where it stands."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...
    def read(self, size: int, /) -> bytes | None: ...
    def readable(self) -> bool: ...
    def truncate(self) -> int: ...


def open_archive_sink(dest: SinkLike, start: ExportCheckpoint, *, overwrite: bool) -> Sink:
    """The sink of an Export that begins at ``start``. Blocks, and reads what an earlier one has written.

    Raises TypeError for what cannot be written to, ValueError for what cannot be continued, IntegrityError for a file
    that does not hold the bytes that the checkpoint covers.
    """
    sink = open_sink(dest, overwrite=overwrite)
    continued = start.archive_size > 0
    if isinstance(sink, PathSink):
        if continued:
            raise ValueError("resume_from needs the file object that the archive's first part is in: a path is new")
    elif isinstance(dest, Seekable) and dest.seekable():
        file = cast("Cuttable", dest)
        origin = file.tell()
        if continued:
            _require_part(file, origin, start)
        if not appends(file) and _can_be_cut(file, origin + start.archive_size):
            return CutFile(file, origin)
    return sink


class CutFile(FileSink):
    """Somebody's file object that ends where the archive does: what followed in it goes."""

    rewrites_in_place = False
    restartable = True

    def __init__(self, file: Cuttable, origin: int) -> None:
        """The archive begins at ``origin``."""
        super().__init__(file)
        self._origin = origin
        self._truncate = file.truncate

    def start(self, position: int = 0) -> None:
        """Raises OSError."""
        super().start(position)
        self._truncate()


def _require_part(file: Cuttable, origin: int, start: ExportCheckpoint) -> None:
    if appends(file) or not file.readable():
        raise ValueError(
            "resume_from reads what was exported before, and cuts what follows it: open the file with mode 'r+b'"
        )
    crc32c, left = 0, start.archive_size
    while left and (block := file.read(min(left, _BLOCK_SIZE))):
        crc32c = google_crc32c.extend(crc32c, block)
        left -= len(block)
    file.seek(origin)
    if left or crc32c != start.crc32c:
        raise IntegrityError(
            f"The file's first {start.archive_size} bytes are not those that were exported: it changed, or is another "
            "one. Export from the beginning."
        )


def _can_be_cut(file: Cuttable, position: int) -> bool:
    """Found out by doing it: compressed files say that they can seek, terminals and /dev/full as well."""
    try:
        file.seek(position)
        file.truncate()
    except (AttributeError, OSError):
        return False
    return True
