"""The archive as a stream of Chunks: offsets, checksums, and what a continuation has to know."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing

import google_crc32c

from keystow_service.envelope import crc32c
from keystow_service.model import MIB
from keystow_service.objects.command import Chunk

_MAX_CHUNK = MIB


class ArchiveStream:
    """Counts what goes out. ``size`` is the archive's so far, ``crc32c`` that of this stream's part of it.

    ``promised`` counts what has been taken and waits to go out, too: the framing relies on it.
    """

    def __init__(self, size: int) -> None:
        self.size = self.promised = size
        self.crc32c = 0

    async def chunks(
        self, pieces: AsyncGenerator[bytes, None], hold: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[Chunk, None]:
        """Small pieces together, none cut, in Chunks of at most 1 MiB; an empty piece is an empty Chunk.

        ``hold`` is called before each, because what was opened may have waited for a slow reader since.
        """
        waiting: list[bytes] = []
        size = 0
        async with aclosing(pieces):
            async for piece in pieces:
                self.promised += len(piece)
                if size + len(piece) > _MAX_CHUNK or not piece:
                    await hold()
                    yield self._chunk(b"".join(waiting))
                    waiting, size = [], 0
                if piece:
                    waiting.append(piece)
                    size += len(piece)
                if size == _MAX_CHUNK:
                    await hold()
                    yield self._chunk(waiting[0] if len(waiting) == 1 else b"".join(waiting))
                    waiting, size = [], 0
        if waiting:
            await hold()
            yield self._chunk(b"".join(waiting))

    def _chunk(self, data: bytes) -> Chunk:
        checksum = google_crc32c.value(data)
        chunk = Chunk(self.size, data, checksum)
        self.size += len(data)
        self.crc32c = crc32c.combine(self.crc32c, checksum, len(data))
        return chunk


async def cut(*parts: bytes) -> AsyncGenerator[bytes, None]:
    """What is in memory already, in pieces that a Chunk can take."""
    for part in parts:
        for piece in _cut(part):
            yield piece


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _MAX_CHUNK):
        yield data[start : start + _MAX_CHUNK]
