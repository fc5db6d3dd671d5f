"""Key states, and what AWS answers to each operation in each.

https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from servers.kms.refusal import Refusal


class State(StrEnum):
    """As DescribeKey tells it, save DELETED: nothing tells that."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_REPLICA_DELETION = "PendingReplicaDeletion"
    PENDING_IMPORT = "PendingImport"
    UNAVAILABLE = "Unavailable"
    CREATING = "Creating"
    UPDATING = "Updating"
    DELETED = "Deleted"


PENDING = frozenset({State.PENDING_DELETION, State.PENDING_REPLICA_DELETION})

# AWS's words about a key, after its ARN.
TEXTS: Mapping[State, str] = MappingProxyType(
    {
        State.DISABLED: "is disabled.",
        State.PENDING_DELETION: "is pending deletion.",
        State.PENDING_REPLICA_DELETION: "is pending replica deletion.",
        State.PENDING_IMPORT: "is pending import.",
        State.UNAVAILABLE: "is unavailable.",
        State.CREATING: "is creating.",
        State.UPDATING: "is updating.",
    }
)

_NOT_PENDING = frozenset(State) - PENDING
_TRANSIENT = frozenset({State.CREATING, State.UPDATING})
_SWITCH = PENDING | _TRANSIENT | {State.PENDING_IMPORT}
# While it is updated, a multi-Region key encrypts and decrypts (UpdatePrimaryRegion).
_USE = frozenset(State) - {State.ENABLED, State.UPDATING}
_IDLE = frozenset(State) - {State.ENABLED}

# The states in which each operation is refused; operations that are not here work in every state.
REFUSED: Mapping[str, frozenset[State]] = MappingProxyType(
    {
        "GenerateDataKey": _USE,
        "Decrypt": _USE,
        "EnableKey": _SWITCH,
        "DisableKey": _SWITCH,
        "ScheduleKeyDeletion": PENDING | _TRANSIENT,
        "CancelKeyDeletion": _NOT_PENDING,
        "RotateKeyOnDemand": _IDLE,
        "ReplicateKey": _IDLE,
        "CreateAlias": PENDING,
        "UpdateAlias": PENDING,
    }
)


def check(operation: str, arn: str, state: State, *, pending_code: str) -> None:
    """Raises Refusal. A use of a key that awaits deletion is answered with either of two codes: ``pending_code``."""
    if state not in REFUSED.get(operation, ()):
        return
    if operation == "CancelKeyDeletion" and state not in _TRANSIENT:
        raise Refusal("KMSInvalidStateException", f"{arn} is not pending deletion.")
    code = "DisabledException" if state is State.DISABLED else "KMSInvalidStateException"
    if state in PENDING and REFUSED[operation] is _USE:
        code = pending_code
    raise Refusal(code, f"{arn} {TEXTS[state]}")
