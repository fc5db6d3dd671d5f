"""What is audited: a record for each RPC, however it ended, each request to KMS, and each change of a key's state.

The promise: free of secrets. A record names who did what, to which tenant, under which key, and how KMS knows of it.
It holds no plaintext, no key and no foreign text; the one name in it, an object's key, is hashed before it is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from keystow_service.model import KeyArn, KeyState, TenantId

CANCELLED = "CANCELLED"  # the reason of what was broken off; it is no error's


class KeyUse(Enum):
    """What a data key is taken for."""

    SEAL = "seal"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class KeyUses:
    """How often a call took data keys of one KMS key, and on which answers of KMS that rested."""

    key_arn: KeyArn
    use: KeyUse
    count: int  # one for each object
    cached: int  # so many of them were in memory, under a lease; for the others KMS was waited for
    kms_request_ids: tuple[str, ...]  # of what made or unwrapped these data keys, and of what proved the leases


@dataclass(frozen=True, slots=True)
class Action:
    """Who does what: the same for all that is recorded of one call."""

    request_id: str
    caller: str
    operation: str
    tenant_id: TenantId | None  # None where none was named that could be one


@dataclass(frozen=True, slots=True)
class RpcEnded:
    """The outcome of one RPC: answered, refused, failed, cancelled or torn down."""

    action: Action
    peer: str  # address and port that the call came from
    object_key: str = field(repr=False)  # empty where none was named
    code: str  # gRPC's
    reason: str  # empty where it did not fail
    bytes_in: int  # plaintext
    bytes_out: int
    last_plaintext: datetime | None  # when some was last handed to the transport
    seconds: float
    key_uses: tuple[KeyUses, ...]


@dataclass(frozen=True, slots=True)
class KeysUsed:
    """More uses of keys by an RPC that goes on than one record takes."""

    action: Action
    key_uses: tuple[KeyUses, ...]


@dataclass(frozen=True, slots=True)
class KmsAttempt:
    """One request to KMS, whatever became of it."""

    action: Action
    kms_operation: str  # KMS's own name for it
    key_arn: KeyArn
    context: Mapping[str, str]  # opaque ids, as KMS gets them
    kms_request_id: str  # CloudTrail's requestID; empty where no answer came, and from the local keyring
    reason: str  # empty where KMS did as asked
    seconds: float


@dataclass(frozen=True, slots=True)
class KeyStateChanged:
    """A use or a probe showed a tenant's key in another state than was known before, here or elsewhere."""

    action: Action
    key_state: KeyState
    previous: KeyState | None  # None: nothing was known of the key
    reason: str  # empty where the key works again
    kms_request_id: str
    deletion_time: datetime | None


AuditRecord: TypeAlias = RpcEnded | KeysUsed | KmsAttempt | KeyStateChanged
