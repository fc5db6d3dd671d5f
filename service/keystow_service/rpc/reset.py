"""Breaking off a call whose client does not read.

While a message waits for room in the client's window, no status gets past it, and message and call stay in memory for
as long as the client likes. gRPC's core resets a stream whose call is released before its end; but grpc.aio holds on to
the call, and offers nothing to let go of it: a task of its own waits for the client to leave. That task is ended here.
"""

import asyncio
import gc

_CONDUCTOR = "_schedule_rpc_coro"  # of grpc.aio: starts the handler's task, then waits for the client


def reset_call() -> bool:
    """Have the call that the current task handles reset once that task has ended. False if grpc.aio has changed.

    grpc.aio's server also keeps the newest call of all until the next one comes.
    """
    handler = asyncio.current_task()
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        if getattr(coroutine, "__name__", "") == _CONDUCTOR and handler in _variables(coroutine):
            return task.cancel()
    return False


def _variables(coroutine: object) -> list[object]:
    """What a compiled coroutine keeps between two of its steps."""
    return [each for frame in gc.get_referents(coroutine) for each in gc.get_referents(frame)]
