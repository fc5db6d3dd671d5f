"""One request to KMS serves all who wait for its answer; who gives up takes it from nobody."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from copy import copy
from typing import Any, Generic, TypeVar

from keystow_service.errors import KeystowError
from keystow_service.keys.trouble import Trouble, time_to_tell, trouble

T = TypeVar("T")


class SharedRequests(Generic[T]):
    """Those of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[T]] = set()

    def begin(self, run: Coroutine[Any, Any, T], done: Callable[[asyncio.Task[T]], None]) -> "SharedRequest[T]":
        """``done`` is told when it is over; nobody needs to wait for it."""
        request_trouble = Trouble()
        context = copy_context()
        context.run(trouble.set, request_trouble)
        task = asyncio.create_task(run, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(done)
        return SharedRequest(task, request_trouble)

    async def aclose(self) -> None:
        """Give up all that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class SharedRequest(Generic[T]):
    """A request under way. It has been sent as soon as its task has begun to run."""

    def __init__(self, task: asyncio.Task[T], request_trouble: Trouble) -> None:
        """For SharedRequests alone."""
        self._task = task
        self._trouble = request_trouble

    async def answer(self) -> T:
        """Raises what the request raises; just before the caller's own deadline, what it met last."""
        async with self._trouble.told_at(time_to_tell()):
            try:
                return await asyncio.shield(self._task)
            except KeystowError as error:
                raise copy(error) from None  # each has his own, whose traceback holds what his frames hold
