"""Leaving an upload: what was begun in the store is ended there, whatever ended its stream, within bounded time.

Of an upload that cannot be resumed nothing stays. From its first token on only AbortPut and the reaper may remove one
that can; before that nobody could go on with it.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keystow_service.ports import ObjectStore, PartObserver, ResumableUpload, WriteCondition

log = structlog.get_logger(__name__)

_TIMEOUT = 10.0


class Leaving:
    """See the module."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def leave(self, end: Callable[[], Awaitable[None]]) -> None:
        """Carry out ``end``, also while this very task is being cancelled. Its failure is only logged."""

        async def leave() -> None:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await end()
            except Exception as error:  # noqa: BLE001 - it must not stand in the place of what ended the Put
                log.warning("upload_not_aborted", reason=getattr(error, "reason", type(error).__name__))

        task = asyncio.create_task(leave())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def begin(
        self, store: ObjectStore, name: str, condition: WriteCondition, on_part: PartObserver
    ) -> ResumableUpload:
        """Begin a resumable upload. Cancelled meanwhile, it leaves none, though the store may begin it after all.

        Raises Store… errors.
        """
        beginning = asyncio.create_task(store.begin_resumable(name, condition, on_part))

        async def discard() -> None:
            await store.discard(name, (await beginning).id)

        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await self.leave(discard)
            raise

    async def aclose(self) -> None:
        """Wait for what is being ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
