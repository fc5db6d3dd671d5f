"""Where blocking work of a transfer runs: files, and iterators and callbacks that belong to the caller.

An event loop must not wait for a disk or for somebody's generator. Both kinds of thread here run the functions of one
transfer in order, one at a time, so a source or sink needs no locks.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Self, TypeVar

_T = TypeVar("_T")


class TransferThread:
    """A thread that lends itself to one transfer at a time, by calling ``serve``.

    The synchronous client's caller does, so iterators, files and callbacks run where it expects them: a generator over
    a sqlite3 connection, for example, works in its own thread only.
    """

    def __init__(self) -> None:
        """Runs nothing before ``serve``."""
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()

    async def run(self, function: Callable[[], _T]) -> _T:
        """The function's result or exception. Cancelling does not stop a function that has begun."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self.post(partial(_settle, future, partial(copy_context().run, function)))
        return await future

    def post(self, function: Callable[[], object]) -> None:
        """Run the function after those before it, without waiting for it. What it raises ends ``serve``."""
        self._jobs.put(function)

    def serve(self) -> None:
        """Run what is asked for until ``stop``. KeyboardInterrupt and the like pass through."""
        while (job := self._jobs.get()) is not None:
            job()

    def stop(self) -> None:
        """End ``serve``, after what was asked for before."""
        self._jobs.put(None)


class OwnThread(TransferThread):
    """A thread made for transfers, as a context manager.

    A daemon: where a read of standard input never returns, neither the transfer nor the end of the process waits.
    """

    def __init__(self) -> None:
        """The thread starts with the first function."""
        super().__init__()
        self._thread = threading.Thread(target=self.serve, name="keystow-transfer", daemon=True)

    def post(self, function: Callable[[], object]) -> None:
        """As TransferThread.post."""
        if self._thread.ident is None:
            self._thread.start()
        super().post(function)

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """The thread ends with its last function; nobody waits for it."""
        self.stop()


def _settle(future: "asyncio.Future[_T]", function: Callable[[], _T]) -> None:
    try:
        result = function()
    except StopIteration:  # a future cannot carry it
        _tell(future, partial(future.set_exception, RuntimeError("a source or sink raised StopIteration")))
    except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the result
        _tell(future, partial(future.set_exception, error))
    else:
        _tell(future, partial(future.set_result, result))


def _tell(future: "asyncio.Future[_T]", settle: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits the result any more
        future.get_loop().call_soon_threadsafe(lambda: None if future.done() else settle())
