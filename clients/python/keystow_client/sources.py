"""What a Put reads from: a path, bytes, a file object, an iterator or an async iterator.

Bytes, regular files, seekable file objects and collections can be read again from any offset; pipes and iterators give
their bytes once, and window.py holds what may be needed again. Blocking reads run in the transfer's thread.
"""

import errno
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from io import FileIO
from typing import Protocol, TypeAlias, cast, runtime_checkable

from keystow_client.errors import SourceChangedError
from keystow_client.threads import TransferThread
from keystow_client.window import CHUNK_SIZE, BytesLike, Source


class Readable(Protocol):
    """A binary file object, opened for reading."""

    def read(self, size: int, /) -> bytes | None:
        """Up to so many bytes; none at the end."""
        ...


@runtime_checkable
class Seekable(Protocol):
    """A file object that may know its position."""

    def seekable(self) -> bool:
        """Whether the others work."""
        ...

    def tell(self) -> int:
        """The position in bytes."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position, and return it."""
        ...


SourceLike: TypeAlias = os.PathLike[str] | BytesLike | Readable | Iterable[BytesLike] | AsyncIterable[BytesLike]


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """By which a file is known to be the same, and unchanged, as far as the file system can tell."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        """The identity that stat or fstat tells."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


async def open_source(source: SourceLike, size: int | None, thread: TransferThread) -> Source:
    """The source of a Put. ``size`` in bytes is the caller's promise, where the source itself does not know.

    Raises TypeError for what cannot be read, str among it: a Path is meant, or bytes. Raises OSError for a path that
    cannot be opened.
    """
    match source:
        case str():
            raise TypeError("a str is ambiguous: give a pathlib.Path, or the bytes themselves")
        case os.PathLike():
            opened = ExitStack()
            try:
                file = await thread.run(lambda: opened.enter_context(FileIO(os.fspath(source))))
                return await _file_source(file, size, thread, close=lambda: thread.post(opened.close))
            except BaseException:
                thread.post(opened.close)  # after the opening, even if that is only under way
                raise
        case bytes() | bytearray() | memoryview():
            view = memoryview(source).cast("B")
            return Source(partial(_from_memory, view), size=len(view) if size is None else size, rewindable=True)
        case _ if hasattr(source, "read"):
            return await _file_source(cast("Readable", source), size, thread)
        case AsyncIterable():
            pieces = partial(_from_async_iterable, source)
            return Source(pieces, size=size, rewindable=not isinstance(source, AsyncIterator))
        case Iterable():
            pieces = partial(_from_iterable, source, thread)
            return Source(pieces, size=size, rewindable=not isinstance(source, Iterator))
    raise TypeError(f"cannot put a {type(source).__name__}: give a Path, bytes, a binary file object or an iterator")


async def _file_source(
    file: Readable, size: int | None, thread: TransferThread, close: Callable[[], None] = lambda: None
) -> Source:
    start, length = await thread.run(partial(_measure, file))
    if start is None:
        pieces = partial(_from_pipe, file, thread)
    else:
        identity = await thread.run(partial(_identify, file))
        pieces = partial(_from_file, file, start, identity, thread)
    return Source(pieces, size=length if size is None else size, rewindable=start is not None, close=close)


def _measure(file: Readable) -> tuple[int | None, int | None]:
    """Position and bytes from there to the end, as far as the file can tell. Pipes know neither, /proc no length."""
    match file:
        case Seekable() if file.seekable():
            start = file.tell()
            try:
                length = file.seek(0, os.SEEK_END) - start
            except OSError:
                length = 0
            file.seek(start)
            return start, length if length > 0 else None
    return None, None


def _identify(file: Readable) -> FileIdentity | None:
    """None for what is no regular file: it cannot be told whether that has changed."""
    try:
        status = os.fstat(file.fileno())  # type: ignore[attr-defined]  # or it has none
    except (AttributeError, OSError):
        return None
    return FileIdentity.of(status) if stat.S_ISREG(status.st_mode) else None


async def _from_memory(view: memoryview, offset: int) -> AsyncGenerator[BytesLike, None]:
    yield view[offset:]


async def _from_file(
    file: Readable, start: int, identity: FileIdentity | None, thread: TransferThread, offset: int
) -> AsyncGenerator[BytesLike, None]:
    if offset and await thread.run(partial(_identify, file)) != identity:
        raise SourceChangedError(
            f"The file changed after its first {offset} bytes were sent: what follows would not belong to them. "
            "Nothing was stored."
        )
    await thread.run(partial(cast("Seekable", file).seek, start + offset))
    while piece := await thread.run(partial(_read, file)):
        yield piece


async def _from_pipe(file: Readable, thread: TransferThread, _: int) -> AsyncGenerator[BytesLike, None]:
    while piece := await thread.run(partial(_read, file)):
        yield piece


def _read(file: Readable) -> bytes:
    piece = file.read(CHUNK_SIZE)
    if piece is None:
        raise BlockingIOError(errno.EAGAIN, "a source must block until there is something to read")
    if not isinstance(piece, BytesLike):
        raise TypeError("the file object is open in text mode: open it with mode 'rb'")
    return piece


async def _from_iterable(
    iterable: Iterable[BytesLike], thread: TransferThread, offset: int
) -> AsyncGenerator[BytesLike, None]:
    iterator = await thread.run(partial(iter, iterable))
    while piece := await thread.run(partial(_gather, iterator)):
        rest = memoryview(piece)[offset:]
        offset = max(0, offset - len(piece))
        if rest:
            yield piece if len(rest) == len(piece) else rest


def _gather(iterator: Iterator[BytesLike]) -> BytesLike:
    """A chunk's worth or more, so that small pieces do not cost a change of threads each. Empty at the end.

    Copies at once, because a generator may fill the same buffer again.
    """
    gathered = bytearray()
    for piece in iterator:
        if not gathered and isinstance(piece, bytes) and len(piece) >= CHUNK_SIZE:
            return piece
        gathered += memoryview(piece).cast("B")
        if len(gathered) >= CHUNK_SIZE:
            break
    return gathered


async def _from_async_iterable(iterable: AsyncIterable[BytesLike], offset: int) -> AsyncGenerator[BytesLike, None]:
    iterator = aiter(iterable)
    try:
        async for piece in iterator:
            data = bytes(piece)  # a copy, unless it is immutable: the generator may reuse its buffer
            rest = data[offset:] if offset else data
            offset -= len(data) - len(rest)
            if rest:
                yield rest
    finally:
        if iterator is not iterable and isinstance(iterator, AsyncGenerator):  # made here, not by the caller
            await iterator.aclose()
