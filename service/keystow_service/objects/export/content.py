"""The bytes of one archive member: an object, verified whole before its member begins where that is asked for.

Objects whose stored bytes came with the first read are opened in memory and checked as a whole before anything of them
is given out. Larger ones are read twice if they must be known to be whole, or their CRC-32 known, before they begin.
"""

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import google_crc32c

from keystow_service.envelope import floe
from keystow_service.envelope.layout import V1
from keystow_service.envelope.sealing import Footer
from keystow_service.envelope.tally import Tally
from keystow_service.objects.export.framing import Framing, Member
from keystow_service.objects.opening import OpenObject
from keystow_service.objects.segments import sealed_segments

# While an object is read for the first time, nothing can be sent of it: after each so many segments, an empty piece
# shows the caller that the stream lives, and this service that the caller does.
_SIGN_OF_LIFE_SEGMENTS = 64


async def member_pieces(
    opened: OpenObject, footer: Footer, name: str, framing: Framing, *, verify_first: bool, blocks_in_flight: int
) -> AsyncGenerator[bytes, None]:
    """The object with its framing, in pieces of at most 1 MiB. Raises DATA_LOSS errors, ObjectChangedError, Store….

    Raised before the first piece that is not empty, they leave the archive as it was.
    """
    in_memory = len(opened.head) == opened.stored.size
    first = _FirstReading(sum_up=framing.needs_crc32, keep=in_memory)
    if in_memory or verify_first or framing.needs_crc32:
        async with aclosing(first.read(_whole(opened, footer, blocks_in_flight))) as signs:
            async for sign in signs:
                yield sign
    member = Member(name, footer.size, opened.front.header.core.create_time, first.crc32)
    begun = False
    async with aclosing(first.again() if in_memory else _whole(opened, footer, blocks_in_flight)) as content:
        async for data in content:
            if not begun:
                yield framing.begin(member)
                begun = True
            yield data
    rest = framing.end(member) if begun else framing.begin(member) + framing.end(member)
    if rest:
        yield rest


class _FirstReading:
    """Reads an object through, and keeps its CRC-32 or its bytes if asked to."""

    def __init__(self, *, sum_up: bool, keep: bool) -> None:
        self.crc32 = 0
        self._sum_up = sum_up
        self._keep = keep
        self._kept: list[bytes] = []

    async def read(self, content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Gives nothing but signs of life."""
        count = 0
        async with aclosing(content):
            async for data in content:
                count += 1
                if self._sum_up:
                    self.crc32 = zlib.crc32(data, self.crc32)
                if self._keep:
                    self._kept.append(data)
                elif count % _SIGN_OF_LIFE_SEGMENTS == 0:
                    yield b""

    async def again(self) -> AsyncGenerator[bytes, None]:
        """What was kept."""
        for data in self._kept:
            yield data


async def _whole(opened: OpenObject, footer: Footer, blocks_in_flight: int) -> AsyncGenerator[bytes, None]:
    """All of the plaintext by segments; the end is reached only if they are those that were committed."""
    tally = Tally()
    indices = range(V1.segments(footer.size))
    async with aclosing(sealed_segments(opened, indices, blocks_in_flight=blocks_in_flight)) as segments:
        async for index, sealed in segments:
            await opened.key.hold()
            plaintext = opened.opener.segment(index, sealed)
            tally = tally.after(len(plaintext), google_crc32c.value(plaintext), bytes(sealed[-floe.TAG_LENGTH :]))
            if plaintext:
                yield plaintext
    opened.opener.check_whole(tally, footer)
