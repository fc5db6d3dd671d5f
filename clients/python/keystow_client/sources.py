"""What a Put reads from: a path, bytes, a file object, an iterator or an async iterator, all as chunks of one size.

A source is started anew for a retry if it can be: bytes, regular files, seekable file objects and collections can,
pipes and iterators cannot once anything beyond their first chunk was taken. Blocking reads run in the transfer's
thread.
"""

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from io import FileIO
from typing import Protocol, Self, TypeAlias, cast, runtime_checkable

from keystow_client.threads import TransferThread

CHUNK_SIZE = 1 << 20  # bytes; what the service seals fastest

BytesLike: TypeAlias = bytes | bytearray | memoryview


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


class Source:
    """The bytes of one Put, as chunks of exactly CHUNK_SIZE, only the last one shorter.

    ``size`` is their number where it is known. Use as an async context manager.
    """

    def __init__(
        self,
        pieces: Callable[[], AsyncGenerator[BytesLike, None]],
        *,
        size: int | None,
        rewindable: bool,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """``pieces`` starts from the first byte, again if ``rewindable``. ``close`` must not block."""
        self.size = size
        self._pieces = pieces
        self._rewindable = rewindable
        self._close = close
        self._stream: AsyncGenerator[bytes, None] | None = None
        self._head = b""
        self._head_is_all_that_was_taken = False

    @property
    def restartable(self) -> bool:
        """Whether ``chunks`` can begin once more."""
        return self._rewindable or self._stream is None or self._head_is_all_that_was_taken

    async def head(self) -> bytes:
        """The first chunk; the whole source if it is shorter than CHUNK_SIZE."""
        if not self._head_is_all_that_was_taken:
            await self._start()
        return self._head

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All chunks from the first on. Check ``restartable`` before calling it again."""
        yield await self.head()
        self._head_is_all_that_was_taken = False
        if self._stream is not None:
            async for chunk in self._stream:
                yield chunk

    async def _start(self) -> None:
        await self._stop()
        self._stream = _rechunked(self._pieces())
        self._head = await anext(self._stream, b"")
        self._head_is_all_that_was_taken = True

    async def _stop(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        """Nothing is read yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what was opened here; file objects and iterators stay their owner's."""
        await self._stop()
        self._close()


async def open_source(source: SourceLike, size: int | None, thread: TransferThread) -> Source:
    """The source of a Put. ``size`` in bytes is the caller's promise, where the source itself does not know.

    Raises TypeError for what cannot be read, str among it: a Path is meant, or bytes. Raises OSError for a path that
    cannot be opened.
    """
    match source:
        case str():
            raise TypeError("a str is ambiguous: give a pathlib.Path, or the bytes themselves")
        case os.PathLike():
            file = await thread.run(partial(FileIO, os.fspath(source)))
            try:
                return await _file_source(file, size, thread, close=lambda: thread.post(file.close))
            except BaseException:
                thread.post(file.close)
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
    return Source(
        partial(_from_file, file, start, thread),
        size=length if size is None else size,
        rewindable=start is not None,
        close=close,
    )


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


async def _from_memory(view: memoryview) -> AsyncGenerator[BytesLike, None]:
    yield view


async def _from_file(file: Readable, start: int | None, thread: TransferThread) -> AsyncGenerator[BytesLike, None]:
    if start is not None:
        await thread.run(partial(cast("Seekable", file).seek, start))
    while piece := await thread.run(partial(_read, file)):
        yield piece


def _read(file: Readable) -> bytes:
    piece = file.read(CHUNK_SIZE)
    if piece is None:
        raise BlockingIOError(errno.EAGAIN, "a source must block until there is something to read")
    if not isinstance(piece, BytesLike):
        raise TypeError("the file object is open in text mode: open it with mode 'rb'")
    return piece


async def _from_iterable(iterable: Iterable[BytesLike], thread: TransferThread) -> AsyncGenerator[BytesLike, None]:
    iterator = await thread.run(partial(iter, iterable))
    while piece := await thread.run(partial(_gather, iterator)):
        yield piece


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


async def _from_async_iterable(iterable: AsyncIterable[BytesLike]) -> AsyncGenerator[BytesLike, None]:
    iterator = aiter(iterable)
    try:
        async for piece in iterator:
            yield bytes(piece)  # a copy, unless it is immutable: the generator may reuse its buffer
    finally:
        if iterator is not iterable and isinstance(iterator, AsyncGenerator):  # made here, not by the caller
            await iterator.aclose()


async def _rechunked(pieces: AsyncGenerator[BytesLike, None]) -> AsyncGenerator[bytes, None]:
    chunk = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            view = memoryview(piece)
            while view:
                if not chunk and len(view) >= CHUNK_SIZE:
                    yield piece if isinstance(piece, bytes) and len(piece) == CHUNK_SIZE else bytes(view[:CHUNK_SIZE])
                    view = view[CHUNK_SIZE:]
                else:
                    missing = CHUNK_SIZE - len(chunk)
                    chunk += view[:missing]
                    view = view[missing:]
                    if len(chunk) == CHUNK_SIZE:
                        yield bytes(chunk)
                        chunk.clear()
    if chunk:
        yield bytes(chunk)
