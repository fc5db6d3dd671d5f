"""What the use cases need from the world. Adapters implement these; tests/contract holds every adapter to them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from keystow_service.audit import AuditRecord
from keystow_service.envelope.part_chain import PartChain
from keystow_service.errors import RequestInvalidError, StoreMisconfiguredError, Violation
from keystow_service.model import (
    DataCenter,
    DataKey,
    KeyArn,
    KeyDescription,
    KeyHealth,
    KeyHealthStep,
    KeyObservation,
    Tenant,
    TenantId,
)

EncryptionContext: TypeAlias = Mapping[str, str]

# The pair of the context that says whose data it is; key policies and the local keyring go by it.
TENANT_CONTEXT = "keystow:tenant"


class Clock(Protocol):
    """Time, so that tests can turn it."""

    def boottime(self) -> float:
        """Seconds of CLOCK_BOOTTIME: monotonic, and runs on while the machine is suspended."""
        ...

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...


# --- The object store -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Absent:
    """Commit only if no object has the name."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Commit only over the object with this ETag."""

    etag: str


WriteCondition: TypeAlias = Absent | Matches


class ConditionFailed(Exception):  # noqa: N818 - an answer, not a fault
    """The write or delete condition does not hold. The object at the name may still be our own, of an answer lost."""


class OutcomeUnknown(Exception):  # noqa: N818 - an answer, not a fault
    """The commit was sent, its answer lost: the object may stand, now or soon. Look before trying again."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A committed object as the store sees it: ciphertext under a name."""

    name: str
    etag: str  # opaque; differs for every content ever stored under the name
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class StoredRange:
    """Some bytes of a stored object. Shorter than asked for only where the object ends."""

    object: StoredObject
    data: bytes


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An upload that is neither committed nor removed."""

    name: str  # of its object; empty where the store does not know it
    id: str
    begun: datetime  # by the store's clock
    dead: bool = False  # whether it is certain that nobody can go on with it, however young it is


# Returns while an object may be made visible, and raises when it may not.
Permit: TypeAlias = Callable[[], Awaitable[object]]


async def always() -> None:
    """A Permit without a condition."""


class Upload(Protocol):
    """One object on its way into the store. Nothing is visible under its name until commit."""

    async def write(self, part: bytearray) -> None:
        """Take over the next part, and return once fewer than the permitted number of parts are in flight.

        Only called for parts that are not the last. The caller gives the buffer away. Raises Store… errors, also for
        earlier parts.
        """
        ...

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """Make the object visible: all parts written, then this one. The object is durable when this returns.

        ``permit`` is awaited when nothing else is left to wait for, each time that the object is about to be made
        visible; what it raises ends the commit. May be called again with the same part after OutcomeUnknown or
        StoreUnavailableError.
        Raises ConditionFailed, OutcomeUnknown, Store… errors, UploadExpiredError, WriteConflictError.
        """
        ...

    async def abort(self) -> None:
        """Stop what is in flight and remove every trace. Safe to call at any time, also twice or after commit."""
        ...


# Is told of each part that has become durable, in any order: its number from 1, its ETag, its size.
PartObserver: TypeAlias = Callable[[int, str, int], None]


class ResumableUpload(Protocol):
    """An upload that outlives its writer: another process can go on with it from its id and its durable parts.

    Several writers may do so at once. Each commits exactly the parts that it was given or wrote itself, or nothing.
    """

    @property
    def id(self) -> str:
        """How the store names the upload."""
        ...

    async def write(self, part: bytearray) -> None:
        """As Upload.write. Also raises UploadExpiredError, UploadSupersededError."""
        ...

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """As Upload.commit. Also raises UploadSupersededError: another writer has written one of the parts since."""
        ...

    async def stop(self) -> None:
        """Stop what is in flight. The upload stays. Safe to call at any time."""
        ...


class ObjectStore(Protocol):
    """Ciphertext under names. Names are safe relative paths (objects/names.py); order is their bytes' order."""

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        """Prepare an upload. Nothing is sent before its first part."""
        ...

    async def begin_resumable(self, name: str, condition: WriteCondition, on_part: PartObserver) -> ResumableUpload:
        """Begin an upload that stays until it is committed, discarded or reaped. Raises Store… errors."""
        ...

    async def resume(
        self, name: str, condition: WriteCondition, upload_id: str, parts: PartChain, on_part: PartObserver
    ) -> ResumableUpload:
        """Go on with an upload after ``parts``, its first durable ones.

        Raises UploadExpiredError (committed, discarded or reaped), UploadSupersededError (these are no longer its
        parts), Store… errors.
        """
        ...

    async def discard(self, name: str, upload_id: str) -> None:
        """Remove every trace of an unfinished upload, if there is one. Raises Store… errors."""
        ...

    def unfinished(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        """Uploads of objects whose names start with ``prefix``, and those without a name, in any order.

        Uploads that begin or end meanwhile may be among them. Raises Store… errors.
        """
        ...

    async def head(self, name: str) -> StoredObject:
        """Raises ObjectNotFoundError, Store… errors."""
        ...

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> StoredRange:
        """Read up to ``length`` (at least 1) bytes from ``start``; data is empty at or past the end.

        With ``etag``, only of that content. Raises ObjectNotFoundError, ObjectChangedError (another ETag),
        ObjectArchivedError, Store… errors.
        """
        ...

    async def list(self, prefix: str, *, start_after: str = "", limit: int) -> Sequence[StoredObject]:
        """At most ``limit`` objects whose names start with ``prefix`` and sort after ``start_after``, in order.

        Fewer than ``limit`` means that these are the last.
        """
        ...

    async def delete(self, name: str, *, etag: str | None = None) -> None:
        """Remove the object; with ``etag`` only that content.

        Raises ObjectNotFoundError, ConditionFailed (another ETag), Store… errors.
        """
        ...


# --- Keys -------------------------------------------------------------------------------------------------------------


class KeyService(Protocol):
    """AWS KMS, or what stands for it. Errors carry key_arn, and aws_request_id where there is one."""

    async def generate_data_key(self, arn: KeyArn, context: EncryptionContext) -> DataKey:
        """A new 256-bit data key, in plaintext and wrapped under the KMS key with ``context``.

        Raises KeyRefusal, KmsUnavailableError, KmsThrottledError, ProviderCredentialsError.
        """
        ...

    async def unwrap(self, arn: KeyArn, wrapped: bytes, context: EncryptionContext) -> DataKey:
        """The data key that was wrapped, under exactly this KMS key and ``context``.

        Raises as generate_data_key, and WrappedKeyInvalidError.
        """
        ...

    async def describe(self, arn: KeyArn) -> KeyDescription:
        """Raises as generate_data_key."""
        ...


# --- Tenants ----------------------------------------------------------------------------------------------------------


class TenantRegistry(Protocol):
    """Tenants and their permanent choices. All methods raise RegistryUnavailableError."""

    async def get(self, tenant_id: TenantId) -> Tenant:
        """Raises TenantNotFoundError."""
        ...

    async def add(self, tenant: Tenant) -> Tenant:
        """Write the tenant, once and for good; answers what stands if the same choice was written before.

        Raises TenantExistsError (another choice), KmsKeyInUseError (a self-managed key, replicas of it included, serves
        one tenant).
        """
        ...

    async def key_in_use(self, arn: KeyArn, *, besides: TenantId) -> bool:
        """Whether another tenant is bound to the key or to a replica of it, whoever manages it."""
        ...

    async def list(self, *, start_after: str = "", limit: int) -> Sequence[Tenant]:
        """At most ``limit`` tenants by id after ``start_after``; fewer means that these are the last."""
        ...


class KeyHealthRecords(Protocol):
    """What all replicas saw of the tenants' own keys, and every change of state. All raise RegistryUnavailableError."""

    async def observe(self, tenant_id: TenantId, seen: KeyObservation) -> KeyHealthStep:
        """Take in what a use or a probe showed. A change of state is remembered for good.

        However many replicas see it, one of them is answered that its observation made the change.
        """
        ...

    async def of(self, tenant_ids: Sequence[TenantId]) -> Mapping[TenantId, KeyHealth]:
        """Without those of which nothing is known."""
        ...

    async def changes(self, tenant_id: TenantId) -> Sequence[KeyObservation]:
        """The observations that showed another state than was known, the first one among them, oldest first."""
        ...

    async def unobserved(
        self, since: datetime, data_center: str, *, start_after: str = "", limit: int
    ) -> Sequence[Tenant]:
        """Tenants of that data centre whose own keys nothing was seen of since then, by their ids."""
        ...


# --- Audit ------------------------------------------------------------------------------------------------------------


class AuditLog(Protocol):
    """Who did what. Not written is never silent: refused beforehand, or alarmed and counted, as the operator chose."""

    def admit(self) -> None:
        """Before anything is begun. Raises AuditUnavailableError if its record could not be written, and must be."""
        ...

    def record(self, record: AuditRecord) -> None:
        """Take it, at once: the disk is waited for elsewhere."""
        ...

    async def durable(self) -> None:
        """Where a record must be written: until all records so far are on the disk. Elsewhere returns at once.

        Raises AuditUnavailableError. What was taken is kept then, and written when it can be.
        """
        ...


# --- Places -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """A data centre with what stands in it."""

    data_center: DataCenter
    store: ObjectStore
    key_service: KeyService
    provider_key: KeyArn


Sites: TypeAlias = Mapping[str, Site]


def chosen_site(sites: Sites, name: str) -> Site:
    """The data centre that a request names. Raises RequestInvalidError."""
    site = sites.get(name)
    if site is None:
        rule = f"must be one of {', '.join(sorted(sites))}"
        raise RequestInvalidError(f"data_center {rule}.", violations=[Violation("data_center", rule)])
    return site


def site_of(sites: Sites, tenant: Tenant) -> Site:
    """Where the tenant is. Raises StoreMisconfiguredError if its data centre has left the configuration."""
    site = sites.get(tenant.data_center)
    if site is None:
        raise StoreMisconfiguredError(
            f"The tenant's data centre {tenant.data_center} is not configured on this server. Add it to data_centers."
        )
    return site
