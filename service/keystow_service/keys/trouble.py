"""What a request to KMS meets on its way, for those who cannot wait for its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass

from keystow_service.acting import acting
from keystow_service.errors import KeystowError, KmsUnavailableError

_TELLING = 0.5  # seconds before its deadline a call is told what was waited for, or in the last tenth of a shorter one


@dataclass(slots=True)
class Trouble:
    """Of one request, however often it is repeated."""

    last: KeystowError | None = None

    @asynccontextmanager
    async def told_at(self, time: float | None) -> AsyncIterator[None]:
        """Around waiting for the request: at that time, if it has one, the caller is told what it met last."""
        try:
            async with asyncio.timeout_at(time):
                yield
        except TimeoutError:
            raise copy(self.last) or KmsUnavailableError(
                "KMS did not answer before the deadline of the call. Try again.", retry_after=1.0
            ) from None


def time_to_tell() -> float | None:
    """Just before the caller's deadline, in the loop's time: later it would get the transport's DEADLINE_EXCEEDED."""
    deadline = acting.get().deadline
    if deadline == float("inf"):
        return None
    left = deadline - asyncio.get_running_loop().time()
    return deadline - min(_TELLING, left / 10)


# Of the request that the running task makes. Set for each that is told of; others share one that nobody looks at.
trouble: ContextVar[Trouble] = ContextVar("trouble", default=Trouble())  # noqa: B039 - as just said
