"""How each tenant's key does: what its uses and probes showed, in this process and, through the registry, in others.

The promise: whoever asks is told the newest observation of any replica, and since when the key is in that state;
that one operation works does not hide that another is refused. What says nothing of a key's state, such as a timeout,
changes nothing. The health of keys is never that of the service.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from keystow_service.errors import (
    KeyRefusal,
    KeystowError,
    KmsAccessDeniedError,
    KmsGrantInvalidError,
    KmsKeyDisabledError,
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyPendingImportError,
    KmsKeyStoreUnavailableError,
)
from keystow_service.keys.proving import KeyObserver
from keystow_service.model import (
    KeyDescription,
    KeyHealth,
    KeyHealthStep,
    KeyObservation,
    KeyState,
    KmsOperation,
    TenantId,
)
from keystow_service.ports import Clock, KeyHealthRecords

_STATES = MappingProxyType(
    {
        KmsKeyDisabledError: KeyState.DISABLED,
        KmsKeyPendingDeletionError: KeyState.PENDING_DELETION,
        KmsKeyPendingImportError: KeyState.PENDING_IMPORT,
        KmsKeyStoreUnavailableError: KeyState.UNAVAILABLE,
        KmsKeyNotFoundError: KeyState.NOT_FOUND,
        KmsAccessDeniedError: KeyState.ACCESS_DENIED,
        KmsGrantInvalidError: KeyState.ACCESS_DENIED,
    }
)

_PAGE = 500  # tenants that the registry is asked about at once

_REASONS = MappingProxyType({state: error.reason for error, state in reversed([*_STATES.items()])})


def described(description: KeyDescription, time: datetime) -> KeyObservation:
    """What DescribeKey showed, as an observation."""
    return KeyObservation(
        description.state,
        time,
        _REASONS.get(description.state, ""),
        description.request_id,
        description.deletion_time,
        KmsOperation.DESCRIBE_KEY,
    )


class _Observer:
    """A KeyObserver of one operation."""

    def __init__(self, book: "KeyHealthBook", clock: Clock, operation: KmsOperation) -> None:
        self._book = book
        self._clock = clock
        self._operation = operation

    def succeeded(self, tenant_id: TenantId, request_id: str) -> None:
        """See proving.KeyObserver."""
        now = self._clock.now()
        self._book.observe(tenant_id, KeyObservation(KeyState.ENABLED, now, "", request_id, None, self._operation))

    def failed(self, tenant_id: TenantId, error: KeystowError) -> None:
        """See proving.KeyObserver. What says nothing of the key's state, such as a timeout, leaves the state alone."""
        state = _STATES.get(type(error)) if isinstance(error, KeyRefusal) else None
        if state is not None:
            date = error.details.get("deletion_time")
            self._book.observe(
                tenant_id,
                KeyObservation(
                    state,
                    self._clock.now(),
                    error.reason,
                    error.details.get("aws_request_id", ""),
                    datetime.fromisoformat(date) if date else None,
                    self._operation,
                ),
            )


class KeyHealthBook:
    """Remembers what this process saw of each key. KeyObservers."""

    def __init__(self, clock: Clock, note: Callable[[TenantId, KeyObservation], None]) -> None:
        """``note`` is handed every observation."""
        self._clock = clock
        self._note = note
        self._known: dict[TenantId, KeyHealth] = {}
        self._last: dict[TenantId, dict[KmsOperation | None, KeyObservation]] = {}

    def get(self, tenant_id: TenantId) -> KeyHealth | None:
        """None if this process has not used the tenant's key yet."""
        return self._known.get(tenant_id)

    def last(self, tenant_id: TenantId) -> Sequence[KeyObservation]:
        """What each operation last showed, oldest first."""
        return sorted(self._last.get(tenant_id, {}).values(), key=lambda seen: seen.time)

    def of(self, operation: KmsOperation) -> KeyObserver:
        """See data_keys.KeyObservers."""
        return _Observer(self, self._clock, operation)

    def observe(self, tenant_id: TenantId, seen: KeyObservation) -> None:
        """Take in what a use or a probe showed."""
        self._known[tenant_id] = KeyHealthStep.of(self._known.get(tenant_id), seen).after
        self._last.setdefault(tenant_id, {})[seen.operation] = seen
        self._note(tenant_id, seen)

    def correct(self, tenant_id: TenantId, health: KeyHealth) -> None:
        """Take over what others have seen since."""
        self._known[tenant_id] = health

    def refused(self) -> Sequence[TenantId]:
        """Whose keys are known in a state that does not let them be used."""
        return [tenant for tenant, health in self._known.items() if health.newest.state is not KeyState.ENABLED]

    def count(self, state: KeyState) -> int:
        """How many tenants' keys are known in a state. From any thread."""
        known = list(self._known.values())  # others come meanwhile
        return sum(health.newest.state is state for health in known)


class KeyHealthView:
    """What is known of keys here and by other replicas."""

    def __init__(self, book: KeyHealthBook, records: KeyHealthRecords) -> None:
        self._book = book
        self._records = records

    async def of(self, tenant_ids: Sequence[TenantId]) -> Mapping[TenantId, KeyHealth]:
        """Without those of which nothing is known. Raises RegistryUnavailableError."""
        recorded = await self._records.of(tenant_ids)
        merged = {}
        for tenant_id in tenant_ids:
            health = recorded.get(tenant_id)
            if health is None:
                health = self._book.get(tenant_id)
            else:
                for seen in self._book.last(tenant_id):
                    health = health.then(seen)
            if health is not None:
                merged[tenant_id] = health
        return merged

    async def refresh(self) -> None:
        """Correct the book where keys were refused here and others have seen more. Raises RegistryUnavailableError."""
        refused = self._book.refused()
        for first in range(0, len(refused), _PAGE):
            for tenant_id, health in (await self.of(refused[first : first + _PAGE])).items():
                self._book.correct(tenant_id, health)
