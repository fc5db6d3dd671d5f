"""The synchronous client's event loop, in a thread of its own; the calling thread works for it meanwhile."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from keystow_client.threads import TransferThread

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        """Runs when this returns."""
        running = threading.Event()

        def run() -> None:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                self._loop.call_soon(running.set)
                self._loop.run_forever()

        self._thread = threading.Thread(target=run, name="keystow-client", daemon=True)
        self._thread.start()
        running.wait()

    def call(self, start: Callable[[TransferThread], Coroutine[Any, Any, _T]]) -> _T:
        """The coroutine's result or exception. The calling thread works for it meanwhile.

        What interrupts the calling thread, such as KeyboardInterrupt, cancels the coroutine, and is raised once that
        has cleaned up.
        """
        caller = TransferThread()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            task = self._loop.create_task(start(caller))
            task.add_done_callback(lambda _: caller.stop())
            tasks.append(task)

        def cancel() -> None:
            if not tasks[0].cancel():  # it has ended, and its own stop may be used up
                caller.stop()

        self._loop.call_soon_threadsafe(begin)
        try:
            caller.serve()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            caller.serve()
            if not tasks[0].cancelled():
                tasks[0].exception()  # seen, and less important
            raise
        return tasks[0].result()

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
