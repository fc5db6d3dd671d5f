"""On whose behalf code runs: who asked, for what, and until when an answer is of use.

Every RPC says so before it does anything, and so does work that the service begins by itself; the tasks that either
starts inherit it. What is shared by several callers, such as one request to KMS, runs on behalf of the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

from keystow_service.audit import KeyUse
from keystow_service.model import Caller, KeyArn, TenantId

# The principal of what nobody called for. No certificate and no token can name it: theirs have no leading "@".
SERVICE = Caller("@keystow-service")


class KeyUseObserver(Protocol):
    """Is told of the data keys that are used on somebody's behalf."""

    def taken(self, arn: KeyArn, use: KeyUse, *, cached: bool) -> None:
        """A data key, for one object; ``cached``: it was in memory, and KMS was not waited for."""
        ...

    def rested(self, arn: KeyArn, use: KeyUse, kms_request_id: str) -> None:
        """The use rests on this answer of KMS: it gave the data key, or proved the lease."""
        ...


class _Nobody:
    """Where no uses are told: the service's own work takes no data keys for objects."""

    def taken(self, arn: KeyArn, use: KeyUse, *, cached: bool) -> None:
        pass

    def rested(self, arn: KeyArn, use: KeyUse, kms_request_id: str) -> None:
        pass


class Urgency(IntEnum):
    """Of a request to KMS. Lower goes first: a customer who restores is waiting for it."""

    RESTORE = 0
    BACKUP = 1
    PROBE = 2


@dataclass(frozen=True, slots=True)
class Acting:
    """One RPC, or one piece of the service's own work."""

    caller: Caller
    operation: str  # the RPC's method, or a name such as "KeyProbe"
    request_id: str = ""
    deadline: float = float("inf")  # in the running loop's time; nobody waits for an answer that comes later
    key_uses: KeyUseObserver = field(default_factory=_Nobody)
    tenant_id: TenantId | None = None  # whom requests to KMS are about, if not whom their contexts name
    urgency: Urgency = Urgency.RESTORE  # at most: how urgent a request is, depends on what it is for


PROBING = Acting(SERVICE, "KeyProbe", urgency=Urgency.PROBE)  # asks after a key that nobody uses

_ITSELF = Acting(SERVICE, "Service")

acting: ContextVar[Acting] = ContextVar("acting", default=_ITSELF)


@contextmanager
def concerning(tenant_id: TenantId, urgency: Urgency = Urgency.RESTORE) -> Iterator[None]:
    """Requests to KMS in the block are about this tenant, and no more urgent than that."""
    who = acting.get()
    token = acting.set(replace(who, tenant_id=tenant_id, urgency=max(urgency, who.urgency)))
    try:
        yield
    finally:
        acting.reset(token)
