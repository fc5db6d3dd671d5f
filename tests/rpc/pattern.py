"""Content of any size that nobody holds whole: cut from one random block, and compared chunk by chunk."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import google_crc32c

from keystow.v1.storage_pb2 import GetResponse, ObjectInfo

_MIB = 1 << 20
_SHIFTS = 1 << 16  # every MiB of the content begins elsewhere in the block, so none stands for another


@dataclass(frozen=True, slots=True)
class Pattern:
    """``size`` bytes, the same each time they are asked for."""

    size: int
    _block: bytes = field(default_factory=lambda: os.urandom(_MIB + _SHIFTS), repr=False)

    def pieces(self) -> Iterator[bytes]:
        """All of it, in pieces of 1 MiB."""
        for start in range(0, self.size, _MIB):
            yield self._piece(start, min(_MIB, self.size - start))

    async def check(self, stream: AsyncIterator[GetResponse]) -> ObjectInfo:
        """Whether a Get of the whole gives exactly this."""
        header = (await anext(stream)).header
        assert (header.offset, header.length) == (0, self.size)
        received, crc32c = 0, 0
        async for response in stream:
            if response.WhichOneof("message") == "finish":
                assert (received, crc32c) == (self.size, response.finish.crc32c)
                return header.object
            data = response.chunk.data
            assert response.chunk.offset == received
            assert data == self._piece(received, len(data))
            received += len(data)
            crc32c = google_crc32c.extend(crc32c, data)
        raise AssertionError("the stream ended without GetFinish")

    def _piece(self, offset: int, length: int) -> bytes:
        """Chunks never cross a border of a segment, and so of a MiB."""
        index, start = divmod(offset, _MIB)
        start += index % _SHIFTS
        return self._block[start : start + length]
