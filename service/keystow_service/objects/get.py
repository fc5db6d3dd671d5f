"""Get: one object, or a range of it, as verified plaintext.

Ciphertext is read ahead, plaintext never: a segment is opened under the lease when its turn to be sent has come. No
byte of a segment leaves before the segment verifies, and a whole read ends well only if its segments are exactly those
that were committed.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import google_crc32c

from keystow_service.envelope import crc32c, floe
from keystow_service.envelope.layout import V1
from keystow_service.envelope.sealing import Footer
from keystow_service.envelope.tally import Tally
from keystow_service.errors import RangeNotSatisfiableError
from keystow_service.keys.held_key import KeyInUse
from keystow_service.model import ObjectInfo
from keystow_service.objects.budget import BufferBudget
from keystow_service.objects.command import Chunk, GetCommand
from keystow_service.objects.opening import ObjectOpening, OpenObject
from keystow_service.objects.segments import FIRST_READ, most_ahead, sealed_segments
from keystow_service.ports import TenantRegistry


@dataclass(frozen=True, slots=True)
class Range:
    """What will be sent: plaintext bytes ``offset`` to ``offset + length`` of the object."""

    object: ObjectInfo
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class RangeEnd:
    """All of the range was sent; ``crc32c`` is of it."""

    crc32c: int


class GetObject:
    """See the module."""

    def __init__(
        self, registry: TenantRegistry, opening: ObjectOpening, budget: BufferBudget, *, blocks_in_flight: int
    ) -> None:
        self._registry = registry
        self._opening = opening
        self._budget = budget
        self._blocks_in_flight = blocks_in_flight

    async def __call__(self, command: GetCommand, in_use: KeyInUse) -> AsyncGenerator[Range | Chunk | RangeEnd, None]:
        """The range, its bytes in chunks of at most 1 MiB, its end; ``in_use`` is told the key that they stand under.

        Close it if you leave early.

        Raises TenantNotFoundError, RangeNotSatisfiableError, OverloadedError, and as ObjectOpening; DATA_LOSS errors
        also later.
        """
        tenant = await self._registry.get(command.tenant_id)
        at_front = 0 <= command.offset < V1.segment
        ahead = FIRST_READ if at_front else 0
        async with self._budget.reserve(ahead + most_ahead(command.length, self._blocks_in_flight)) as reservation:
            opened = await self._opening(tenant, command.key, version_id=command.version_id, ahead=ahead)
            in_use.held = opened.key
            start, end, footer = await _resolve(opened, command)
            reservation.resize(len(opened.head) + most_ahead(end - start, self._blocks_in_flight))
            async with aclosing(self._send(opened, start, end, footer)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _send(
        self, opened: OpenObject, start: int, end: int, footer: Footer | None
    ) -> AsyncGenerator[Range | Chunk | RangeEnd, None]:
        announcement: Range | None = Range(opened.info(footer), start, end - start)
        checksum, tally = 0, Tally()
        whole = footer is not None and (start, end) == (0, footer.size)
        indices = _segments_of(start, end, whole=whole)
        async with aclosing(sealed_segments(opened, indices, blocks_in_flight=self._blocks_in_flight)) as segments:
            async for index, sealed in segments:
                await opened.key.hold()
                plaintext = opened.opener.segment(index, sealed)
                if announcement:
                    yield announcement
                    announcement = None
                    await opened.key.hold()  # the reader may have taken its time
                first = index * V1.segment
                data = plaintext[max(0, start - first) : end - first]
                data_crc32c = google_crc32c.value(data)
                if data:
                    yield Chunk(max(first, start), data, data_crc32c)
                checksum = crc32c.combine(checksum, data_crc32c, len(data))
                tally = tally.after(len(data), data_crc32c, bytes(sealed[-floe.TAG_LENGTH :]))
        if announcement:
            yield announcement
        if whole and footer is not None:
            opened.opener.check_whole(tally, footer)
        yield RangeEnd(checksum)


async def _resolve(opened: OpenObject, command: GetCommand) -> tuple[int, int, Footer | None]:
    """The range in the object, and the footer where the range depends on the object's size."""
    size = opened.opener.size
    start = command.offset if command.offset >= 0 else max(0, size + command.offset)
    end = size if command.length is None else start + command.length
    if 0 <= command.offset < end < size:
        return start, end, None
    footer = await opened.footer()
    if start > size:
        raise RangeNotSatisfiableError(f"The range starts at {start}; the object has {size} bytes.")
    return start, min(end, size), footer


def _segments_of(start: int, end: int, *, whole: bool) -> range:
    """The segments that hold the range; of a whole object all, so also an empty last one."""
    if whole:
        return range(V1.segments(end))
    if start == end:
        return range(0)
    return range(V1.segment_at(start), V1.segment_at(end - 1) + 1)
