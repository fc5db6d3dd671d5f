"""The bytes of one Put in chunks, with those held back that may have to be sent once more.

What can be read again is: only the chunk at hand is held. What comes once is held from the last byte that the service
has for sure, within a bound. At the bound nothing more is taken until the service has more for sure; if that does not
come in time, the oldest bytes are let go instead, so that neither memory nor waiting is without end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Self, TypeAlias

CHUNK_SIZE = 1 << 20  # bytes; what the service seals fastest

BytesLike: TypeAlias = bytes | bytearray | memoryview

_log = logging.getLogger("keystow_client")


class Source:
    """The bytes of one Put, as chunks of exactly CHUNK_SIZE, only the last one shorter.

    ``size`` is their number where it is known. Use as an async context manager. One reader at a time.
    """

    def __init__(
        self,
        pieces: Callable[[int], AsyncGenerator[BytesLike, None]],
        *,
        size: int | None,
        rewindable: bool,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """``pieces`` starts at an offset, at any and again if ``rewindable``, else at 0. ``close`` must not block."""
        self.size = size
        self.failed = False
        self._pieces = pieces
        self._rewindable = rewindable
        self._close = close
        self._stream: AsyncGenerator[bytes, None] | None = None
        # Outlives the reader that asked for it: what an iterator has given must not get lost with a connection.
        self._reading: asyncio.Future[bytes] | None = None
        self._held: deque[bytes] = deque()
        self._begin = 0  # the offset of the first byte held
        self._end = 0  # and of the first not yet read
        self._limit = CHUNK_SIZE
        self._patience: float | None = None  # without it nothing is waited for
        self._room = asyncio.Event()

    def hold(self, limit: int, patience: float) -> None:
        """From now on hold what comes once until ``release``, at most ``limit`` bytes.

        At the limit wait for a release, but after ``patience`` seconds without one for none any more.
        """
        if not self._rewindable and limit > CHUNK_SIZE:
            self._limit, self._patience = limit, patience

    def hold_no_more(self) -> None:
        """From now on hold only the chunk at hand, and wait for nothing."""
        self._limit, self._patience = CHUNK_SIZE, None
        self._room.set()

    def release(self, offset: int) -> None:
        """Let go what lies before the offset: nobody will start there any more."""
        while self._held and self._begin + len(self._held[0]) <= offset:
            self._let_go()
        self._room.set()

    def can_start_at(self, offset: int) -> bool:
        """Whether ``chunks`` can begin there: at 0, or where a chunk ended."""
        return not self.failed and (self._rewindable or self._begin <= offset)

    async def head(self) -> bytes:
        """The first chunk, without moving on; the whole source if it is shorter than CHUNK_SIZE."""
        async with aclosing(self.chunks(0)) as chunks:
            return await anext(chunks, b"")

    async def chunks(self, start: int) -> AsyncGenerator[bytes, None]:
        """All chunks from ``start`` on; ask ``can_start_at`` first. Raises what the source raises."""
        if self._stream is None or not self._begin <= start <= self._end:
            await self._open(start)
        position = start
        while chunk := await self._chunk(position):
            yield chunk
            position += len(chunk)

    async def _open(self, start: int) -> None:
        await self._stop()
        self._stream = _rechunked(self._pieces(start))
        self._held.clear()
        self._begin = self._end = start

    async def _chunk(self, position: int) -> bytes:
        if position < self._end:
            return self._held[(position - self._begin) // CHUNK_SIZE]
        await self._make_room()
        if self._reading is None:
            assert self._stream is not None  # noqa: S101 - chunks opened it
            self._reading = asyncio.ensure_future(anext(self._stream, b""))
        await asyncio.wait({self._reading})
        try:
            chunk = self._reading.result()
        except BaseException:
            self.failed = True  # and stays so: what the source had when it failed is gone
            raise
        self._reading = None
        if chunk:
            self._held.append(chunk)
            self._end += len(chunk)
        return chunk

    async def _make_room(self) -> None:
        while len(self._held) * CHUNK_SIZE + CHUNK_SIZE > self._limit:
            if self._patience is None:
                self._let_go()
                continue
            self._room.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._room.wait()
            except TimeoutError:
                _log.warning(
                    "The service has taken %d MiB since its last UploadProgress; going on without it. If the connection"
                    " breaks before the next, the upload cannot be continued.",
                    self._limit >> 20,
                )
                self._patience = None

    def _let_go(self) -> None:
        self._begin += len(self._held.popleft())

    async def _stop(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        """Nothing is read yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what was opened here; file objects and iterators stay their owner's."""
        await self._stop()
        self._close()


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
