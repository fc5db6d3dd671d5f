"""The parts of one upload that are on their way, at most so many at once: this is the backpressure of a Put.

What they keep: a part's buffer is let go the moment its part is done, and a part that fails fails its upload.
"""

import asyncio
from collections.abc import Callable

# What a part has where the object is not huge. Larger ones are fewer at once, so that an upload's memory stays what its
# caller has reserved: so many parts of this size, or one larger one.
_USUAL_PART = 8 * 1024 * 1024


class InFlight:
    """Parts by number. One task drives it; it never cancels a part on its own."""

    def __init__(self, limit: int) -> None:
        """``limit`` is at least 1."""
        self._limit = limit
        self._parts: dict[int, asyncio.Future[None]] = {}
        self._sizes: dict[int, int] = {}

    def add(self, number: int, part: "asyncio.Future[None]", size: int) -> None:
        """Watch over a part of ``size`` bytes; it replaces one of the same number, which may have failed."""
        self._parts[number] = part
        self._sizes[number] = size

    async def room(self) -> None:
        """Return once fewer than the limit are in flight, in number and in bytes. Raises what a part raised."""
        await self._until(
            lambda: (
                len(self._parts) < self._limit
                and (len(self._parts) <= 1 or sum(self._sizes.values()) < self._limit * _USUAL_PART)
            )
        )

    async def settled(self) -> None:
        """Return once every part is done. Raises what a part raised."""
        await self._until(lambda: not self._parts)

    def cancel(self) -> None:
        """Cancel what is in flight; ``ended`` waits for it."""
        for part in self._parts.values():
            part.cancel()

    async def ended(self) -> None:
        """Return once nothing is in flight any more, however it ended."""
        if self._parts:
            await asyncio.wait(self._parts.values())
        for part in self._parts.values():
            if not part.cancelled():
                part.exception()  # marks it as seen
        self._parts.clear()
        self._sizes.clear()

    async def _until(self, enough: Callable[[], bool]) -> None:
        while True:
            for number, part in list(self._parts.items()):
                if part.done():
                    part.result()  # a failed part stays, so that the upload goes on failing
                    del self._parts[number], self._sizes[number]
            if enough():
                return
            await asyncio.wait(self._parts.values(), return_when=asyncio.FIRST_COMPLETED)
