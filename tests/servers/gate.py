"""Where work waits until a test lets it go, so that no test has to guess how long something takes."""

import asyncio


class Gate:
    """See the module."""

    def __init__(self) -> None:
        self.held = 0
        self._changed = asyncio.Condition()
        self._opened = asyncio.Event()

    async def until(self, held: int) -> None:
        """Return once so many wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.held >= held)

    def open(self) -> None:
        """Let all of them go, and those that come later."""
        self._opened.set()

    async def wait(self) -> None:
        """Stay until it opens."""
        async with self._changed:
            self.held += 1
            self._changed.notify_all()
        await self._opened.wait()
