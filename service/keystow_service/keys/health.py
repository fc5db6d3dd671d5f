"""What the last use of each tenant's key showed, as far as this process saw."""

from dataclasses import dataclass, replace
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
from keystow_service.model import KeyState, TenantId
from keystow_service.ports import Clock

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


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """The state of a tenant's key as its last use showed it."""

    state: KeyState
    check_time: datetime
    since_time: datetime
    last_success_time: datetime | None = None
    reason: str = ""
    aws_request_id: str = ""


class KeyHealthBook:
    """Remembers the last use of each key. A KeyObserver."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[TenantId, KeyHealth] = {}

    def get(self, tenant_id: TenantId) -> KeyHealth | None:
        """None if this process has not used the tenant's key yet."""
        return self._known.get(tenant_id)

    def succeeded(self, tenant_id: TenantId, request_id: str) -> None:
        """See leases.KeyObserver."""
        now = self._clock.now()
        known = self._known.get(tenant_id)
        since = known.since_time if known and known.state is KeyState.ENABLED else now
        self._known[tenant_id] = KeyHealth(KeyState.ENABLED, now, since, now, aws_request_id=request_id)

    def failed(self, tenant_id: TenantId, error: KeystowError) -> None:
        """See leases.KeyObserver. What says nothing of the key's state, such as a timeout, leaves the state alone."""
        state = _STATES.get(type(error)) if isinstance(error, KeyRefusal) else None
        if state is None:
            return
        now = self._clock.now()
        known = self._known.get(tenant_id) or KeyHealth(state, now, now)
        self._known[tenant_id] = replace(
            known,
            state=state,
            check_time=now,
            since_time=known.since_time if known.state is state else now,
            reason=error.reason,
            aws_request_id=error.details.get("aws_request_id", ""),
        )
