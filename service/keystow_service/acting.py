"""On whose behalf code runs: who asked, for what, and until when an answer is of use.

Every RPC says so before it does anything, and so does work that the service begins by itself; the tasks that either
starts inherit it. What is shared by several callers, such as one request to KMS, runs on behalf of the first.
"""

from contextvars import ContextVar
from dataclasses import dataclass

from keystow_service.model import Caller

# The principal of what nobody called for. No certificate and no token can name it: theirs have no leading "@".
SERVICE = Caller("@keystow-service")


@dataclass(frozen=True, slots=True)
class Acting:
    """One RPC, or one piece of the service's own work."""

    caller: Caller
    operation: str  # the RPC's method, or a name such as "KeyProbe"
    request_id: str = ""
    deadline: float = float("inf")  # in the running loop's time; nobody waits for an answer that comes later


_ITSELF = Acting(SERVICE, "Service")

acting: ContextVar[Acting] = ContextVar("acting", default=_ITSELF)
