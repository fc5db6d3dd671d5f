"""Bringing a key into each state, the way it gets there."""

from collections.abc import Mapping
from types import MappingProxyType

from servers.kms.keys import Key, Kind
from servers.kms.service import FaithfulKms
from servers.kms.states import State

# What a key must be to get into a state; others are plain.
KINDS: Mapping[State, Kind] = MappingProxyType(
    {
        State.PENDING_REPLICA_DELETION: Kind(multi_region=True),
        State.PENDING_IMPORT: Kind(origin="EXTERNAL"),
        State.UNAVAILABLE: Kind(origin="AWS_CLOUDHSM"),
        State.CREATING: Kind(multi_region=True),
        State.UPDATING: Kind(multi_region=True),
    }
)


def key_for(kms: FaithfulKms, state: State, *tenants: str, region: str = "us-east-1") -> Key:
    """An enabled key that can get into that state."""
    key = kms.create_key(*tenants, region=region, kind=KINDS.get(state, Kind()))
    if key.kind.origin == "EXTERNAL":
        key.import_material()
    return key


def bring(kms: FaithfulKms, key: Key, state: State) -> None:
    """Into that state, from Enabled."""
    match state:
        case State.ENABLED:
            pass
        case State.DISABLED:
            key.disable()
        case State.PENDING_DELETION:
            key.schedule_deletion()
        case State.PENDING_REPLICA_DELETION:
            kms.replicate(key, "eu-central-1")
            key.schedule_deletion()
        case State.PENDING_IMPORT:
            key.delete_material()
        case State.UNAVAILABLE:
            key.disconnect()
        case State.CREATING | State.UPDATING:
            key.begin(state)
        case State.DELETED:
            key.delete()
    assert key.state is state
