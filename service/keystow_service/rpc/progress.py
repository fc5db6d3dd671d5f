"""Telling a Put's progress beside reading its chunks: neither waits for the other.

A client may leave responses unread until it has sent everything. So a task of its own sends the newest progress, and is
given all the time that the client takes to send; only then must the client read. And where the Put fails while that
task is stuck, the rest of what the client sends is taken and dropped, for only then does such a client come to reading,
and learns of the failure.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress

from keystow_service.errors import KeystowError
from keystow_service.objects.progress import LatestProgress, Progress


@asynccontextmanager
async def telling(
    progress: LatestProgress,
    send: Callable[[Progress], Awaitable[None]],
    take: Callable[[], Awaitable[object]],
    patience: AbstractAsyncContextManager[None],
) -> AsyncGenerator[None, None]:
    """Send what is published while the block runs; when this ends, nothing is being sent any more.

    ``take`` gives the client's next message, and raises a KeystowError when there is none. ``patience`` bounds how long
    what is being sent at the end of the block may wait to be read. Raises what it and ``send`` raise.
    """
    task = asyncio.create_task(_tell(progress, send))
    try:
        try:
            yield
        except KeystowError:
            progress.close()
            await _drop_until(task, take)
            raise
        progress.close()
        async with patience:
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell(progress: LatestProgress, send: Callable[[Progress], Awaitable[None]]) -> None:
    async with aclosing(progress.news()) as news:
        async for latest in news:
            await send(latest)


async def _drop_until(task: "asyncio.Task[None]", take: Callable[[], Awaitable[object]]) -> None:
    """Take messages until the task is done or nothing more comes."""

    async def drop() -> None:
        with suppress(KeystowError):
            while True:
                await take()

    dropping = asyncio.create_task(drop())
    try:
        await asyncio.wait([task, dropping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        dropping.cancel()
        await asyncio.gather(dropping, return_exceptions=True)
