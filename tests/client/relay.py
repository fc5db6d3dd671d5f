"""A TCP relay on loopback that can break connections for real."""

import asyncio
import threading
from collections import deque
from typing import Self

from servers.listener import listening


class Relay:
    """Forwards to a port. Each of ``cuts`` resets a connection once the client has "sent" or "got" so many bytes.

    A "refused" one is reset at once. One of ``holds``, where there are no cuts, passes nothing more of that direction
    on instead, until ``let_go`` resets it. ``passed`` counts the bytes of all clients.
    """

    def __init__(self, port: int) -> None:
        self.cuts: deque[tuple[str, int]] = deque()
        self.holds: deque[tuple[str, int]] = deque()
        self.connections = 0
        self.passed = {"sent": 0, "got": 0}
        self.holding = threading.Event()
        self._let_go = asyncio.Event()
        self._target = port
        self.port = 0
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="relay")

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with listening(self._pass_on) as self.port:
            self._started.set()
            await self._stop.wait()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut = self.cuts.popleft() if self.cuts else ("", 0)
        hold = self.holds.popleft() if self.holds and not cut[0] else ("", 0)
        if cut[0] == "refused":
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as copies:
                copies.create_task(self._copy("sent", reader, up_writer, cut, hold))
                copies.create_task(self._copy("got", up_reader, writer, cut, hold))
        except* ConnectionError:
            pass  # so each copy ends, and with it the other
        finally:
            up_writer.transport.abort()
            writer.transport.abort()

    async def _copy(
        self,
        direction: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cut: tuple[str, int],
        hold: tuple[str, int],
    ) -> None:
        """Until the end of the stream, or of the limit. Raises ConnectionError then."""
        passed = 0
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            passed += len(data)
            self.passed[direction] += len(data)
            if direction == cut[0] and passed >= cut[1]:
                break
            if direction == hold[0] and passed >= hold[1]:
                self.holding.set()
                await self._let_go.wait()
                break
        raise ConnectionAbortedError

    def let_go(self) -> None:
        """Reset the connection that is held."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._let_go.set)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
