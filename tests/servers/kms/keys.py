"""A KMS key: what it is, the state it is in, and what its owner does with it.

The owner's acts are methods, for tests in the same process; administration.py offers them over the wire. Both raise
Refusal where the key's state does not allow them. The data plane sees their effect when propagation lets it (lag.py).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from keystow_service.ports import Clock
from servers.kms.lag import Lag, Lagging
from servers.kms.material import Material
from servers.kms.policy import Document, Policy
from servers.kms.refusal import Refusal, invalid
from servers.kms.states import State, check

_WINDOWS = range(7, 31)  # days


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a key changes. Its state follows from it, and from the time."""

    policy: Policy
    enabled: bool = True
    scheduled_at: datetime | None = None  # of ScheduleKeyDeletion
    window: timedelta = timedelta()
    deleted: bool = False
    imported: bool = True  # key material is there; always true if AWS made it
    valid_to: datetime | None = None  # of imported material
    connected: bool = True  # to its custom key store
    transient: State | None = None  # Creating or Updating


@dataclass(frozen=True, slots=True)
class Kind:
    """What of a key never changes."""

    spec: str = "SYMMETRIC_DEFAULT"
    usage: str = "ENCRYPT_DECRYPT"
    origin: str = "AWS_KMS"  # or EXTERNAL, AWS_CLOUDHSM, EXTERNAL_KEY_STORE
    manager: str = "CUSTOMER"  # or AWS
    multi_region: bool = False


class Key:
    """One key of one region, and so each replica of a multi-Region key."""

    def __init__(
        self, arn: str, kind: Kind, policy: Document | str, material: Material, clock: Clock, lag: Lag
    ) -> None:
        _, _, _, self.region, self.account, resource = arn.split(":")
        self.arn = arn
        self.key_id = resource.removeprefix("key/")
        self.kind = kind
        self.material = material
        self.created_at = clock.now()
        self.replicas: dict[str, Key] = {}  # of a primary key, by region
        self.primary: Key | None = None  # of a replica
        # How AWS answers while the key awaits deletion: this, or DisabledException.
        self.pending_code = "KMSInvalidStateException"
        standing = Standing(Policy.of_key(policy), imported=kind.origin != "EXTERNAL")
        self._standing = Lagging(standing, lag)
        self._clock = clock

    @property
    def standing(self) -> Standing:
        """As its owner has it."""
        return self._standing.newest

    @property
    def seen(self) -> Standing:
        """As the data plane has it."""
        return self._standing.seen

    @property
    def state(self) -> State:
        """As its owner has it."""
        return self.state_of(self.standing)

    def state_of(self, standing: Standing) -> State:
        """That follows from a standing, now."""
        deletion_date = self._deletion_date(standing)
        now = self._clock.now()
        if standing.deleted or (deletion_date is not None and deletion_date <= now):
            return State.DELETED
        if standing.transient is not None:
            return standing.transient
        if standing.scheduled_at is not None:
            return State.PENDING_REPLICA_DELETION if deletion_date is None else State.PENDING_DELETION
        if not standing.imported or (standing.valid_to is not None and standing.valid_to <= now):
            return State.PENDING_IMPORT
        if not standing.connected:
            return State.UNAVAILABLE
        return State.ENABLED if standing.enabled else State.DISABLED

    @property
    def deletion_date(self) -> datetime | None:
        """None also while the replicas of a key that is to be deleted still exist."""
        return self._deletion_date(self.standing)

    def _deletion_date(self, standing: Standing) -> datetime | None:
        if standing.scheduled_at is None or any(each.state is not State.DELETED for each in self.replicas.values()):
            return None
        # The waiting time of a primary key begins once its last replica is gone.
        gone = [date for each in self.replicas.values() if (date := each.deletion_date) is not None]
        return max([standing.scheduled_at, *gone]) + standing.window

    def enable(self) -> None:
        self._check("EnableKey")
        self._change(enabled=True)

    def disable(self) -> None:
        self._check("DisableKey")
        self._change(enabled=False)

    def schedule_deletion(self, days: int = 30) -> datetime | None:
        """Answers when: None for a key that has replicas."""
        if days not in _WINDOWS:
            raise invalid("PendingWindowInDays must be between 7 and 30")
        self._check("ScheduleKeyDeletion")
        self._change(scheduled_at=self._clock.now(), window=timedelta(days=days))
        return self.deletion_date

    def cancel_deletion(self) -> None:
        """Leaves it disabled."""
        self._check("CancelKeyDeletion")
        self._change(scheduled_at=None, enabled=False)

    def delete(self) -> None:
        """As at the end of the waiting time."""
        self._change(deleted=True)

    def rotate(self) -> None:
        """Of imported material AWS would want to have the next one first: that is not known here."""
        if self.kind.spec != "SYMMETRIC_DEFAULT" or self.kind.origin != "AWS_KMS" or self.primary is not None:
            raise Refusal("UnsupportedOperationException", f"{self.arn} cannot be rotated on demand.")
        self._check("RotateKeyOnDemand")
        self.material.rotate()

    def put_policy(self, document: Document | str) -> None:
        """Raises UnknownPolicyError."""
        self._change(policy=Policy.of_key(document))

    def import_material(self, valid_to: datetime | None = None) -> None:
        """The same as before, if it had any: AWS takes no other."""
        self._external()
        self._change(imported=True, valid_to=valid_to, enabled=True)

    def delete_material(self) -> None:
        """Or as it is when the material expires."""
        self._external()
        self._change(imported=False, valid_to=None)

    def disconnect(self) -> None:
        """Its custom key store cannot be reached."""
        self._change(connected=False)

    def connect(self) -> None:
        self._change(connected=True)

    def begin(self, transient: State) -> None:
        """AWS is creating or updating it."""
        self._change(transient=transient)

    def settle(self) -> None:
        """AWS is done with that."""
        self._change(transient=None)

    def _check(self, operation: str) -> None:
        check(operation, self.arn, self.state, pending_code=self.pending_code)

    def _external(self) -> None:
        if self.kind.origin != "EXTERNAL":
            raise Refusal("UnsupportedOperationException", f"{self.arn} origin is {self.kind.origin}.")

    def _change(self, **fields: object) -> None:
        self._standing.set(replace(self.standing, **fields))  # type: ignore[arg-type] # fields of any type
