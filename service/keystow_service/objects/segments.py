"""The sealed segments of an open object, read ahead in blocks: ciphertext, to be opened when its turn has come."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from keystow_service.envelope import floe
from keystow_service.envelope.layout import FOOTER_LENGTH, V1
from keystow_service.objects.opening import OpenObject
from keystow_service.objects.prefetch import prefetch

_BLOCK_SEGMENTS = 4  # read from the store at once
# Beyond the front: the first segment, and with it the whole of every object up to 1 MiB.
FIRST_READ = V1.sealed_segment + floe.SEGMENT_OVERHEAD + FOOTER_LENGTH


def most_ahead(length: int | None, blocks_in_flight: int) -> int:
    """The most bytes that are in memory of a run of ``length`` bytes, or of any."""
    most = (blocks_in_flight + 1) * _BLOCK_SEGMENTS * V1.sealed_segment
    return most if length is None else min(most, length + 2 * V1.sealed_segment)


async def sealed_segments(
    opened: OpenObject, indices: range, *, blocks_in_flight: int
) -> AsyncGenerator[tuple[int, memoryview], None]:
    """Segments by index. Raises as OpenObject.read."""
    size = opened.opener.size

    async def fetch(block: range) -> tuple[range, bytes]:
        length = sum(V1.sealed_length(size, index) for index in block)
        return block, await opened.read(V1.stored_offset(block.start), length)

    async with aclosing(prefetch(_blocks(indices), fetch, depth=blocks_in_flight)) as blocks:
        async for block, data in blocks:
            view = memoryview(data)
            for index in block:
                length = V1.sealed_length(size, index)
                yield index, view[:length]
                view = view[length:]


async def _blocks(indices: range) -> AsyncGenerator[range, None]:
    """The first segment alone, since it is the one waited for; then several together."""
    if indices:
        yield indices[:1]
    for begin in range(1, len(indices), _BLOCK_SEGMENTS):
        yield indices[begin : begin + _BLOCK_SEGMENTS]
