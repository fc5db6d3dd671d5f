"""How a stream ended, in the server's own words.

When a message is written just after the server has ended the call, as happens with every early refusal, grpc.aio may
put an INTERNAL of its own making in the place of the server's status (grpc/grpc#36066), and the reason is gone. The
real status is there, though: before the invented one, where a done callback sees it, or soon after it.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

_T = TypeVar("_T")

# grpc.aio's text of the status that it makes up.
_INVENTED = "Internal error from Core"
# Seconds between looks for the real status, four in all. It comes at once, unless the call failed inside Core itself.
_PAUSES = tuple(0.001 * 2**n for n in range(12))


class Ending:
    """Knows one call's real status. To be made before anything is written."""

    def __init__(self, call: grpc.aio.Call) -> None:
        """Watches until the call ends."""
        self._call = call
        self._status: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._look)

    async def error(self) -> grpc.aio.AioRpcError | None:
        """The failure that the call ended with; none if it ended well. To be asked once it has ended."""
        for pause in _PAUSES:
            self._look(self._call)
            if self._status is not None:
                break
            await asyncio.sleep(pause)
        status = self._status or await _status_of(self._call)
        return None if status.code() is grpc.StatusCode.OK else status

    def _look(self, call: grpc.aio.Call) -> None:
        if self._status is None:
            status = _at_once(_status_of(call))
            if status.details() != _INVENTED:
                self._status = status


async def _status_of(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    metadata = await call.trailing_metadata()
    return grpc.aio.AioRpcError(await call.code(), trailing_metadata=metadata, details=await call.details())


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that has nothing to wait for, as none of an ended call's has."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value  # type: ignore[no-any-return]  # StopIteration is not generic
    coroutine.close()
    raise RuntimeError("the call has not ended")
