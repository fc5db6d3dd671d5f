"""Read ahead: several reads under way while the first is used, in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


async def prefetch(
    items: AsyncGenerator[_T, None], fetch: Callable[[_T], Awaitable[_R]], *, depth: int
) -> AsyncGenerator[_R, None]:
    """What ``fetch`` gives for each item, with up to ``depth`` under way. Closing it cancels those, and ``items``."""
    tasks: deque[asyncio.Task[_R]] = deque()

    async def run(item: _T) -> _R:
        return await fetch(item)

    try:
        async with aclosing(items):
            async for item in items:
                tasks.append(asyncio.create_task(run(item)))
                if len(tasks) >= depth:
                    yield await tasks.popleft()
        while tasks:
            yield await tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
