"""One request to KMS serves all who wait for its answer; who gives up takes it from nobody."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from copy import copy
from typing import Any, Generic, TypeVar

from keystow_service.errors import KeystowError
from keystow_service.keys.trouble import Trouble, time_to_tell, trouble

T = TypeVar("T")


class SharedRequest(Generic[T]):
    """A request under way. It has been sent as soon as its task has begun to run."""

    def __init__(self, run: Coroutine[Any, Any, T], done: Callable[[asyncio.Task[T]], None]) -> None:
        """``done`` is told when it is over; nobody needs to wait for it."""
        self._trouble = Trouble()
        context = copy_context()
        context.run(trouble.set, self._trouble)
        self._task = asyncio.create_task(run, context=context)
        self._task.add_done_callback(done)

    async def answer(self) -> T:
        """Raises what the request raises; just before the caller's own deadline, what it met last."""
        async with self._trouble.told_at(time_to_tell()):
            try:
                return await asyncio.shield(self._task)
            except KeystowError as error:
                raise copy(error) from None  # each has his own, whose traceback holds what his frames hold

    async def aclose(self) -> None:
        """Give it up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
