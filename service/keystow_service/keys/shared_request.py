"""One request to KMS serves all who wait for its answer; who gives up takes it from nobody."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from keystow_service.acting import acting
from keystow_service.errors import KmsUnavailableError
from keystow_service.keys.trouble import Trouble, trouble

T = TypeVar("T")

_TELLING = 0.5  # seconds before its deadline a call is told what was waited for, or in the last tenth of a shorter one


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
        try:
            async with asyncio.timeout_at(_time_to_tell()):
                return await asyncio.shield(self._task)
        except TimeoutError:
            raise self._trouble.last or KmsUnavailableError(
                "KMS did not answer before the deadline of the call. Try again.", retry_after=1.0
            ) from None

    async def aclose(self) -> None:
        """Give it up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _time_to_tell() -> float | None:
    """In the loop's time: what comes later would be the transport's bare DEADLINE_EXCEEDED."""
    deadline = acting.get().deadline
    if deadline == float("inf"):
        return None
    left = deadline - asyncio.get_running_loop().time()
    return deadline - min(_TELLING, left / 10)
