"""What the service answers, as plain frozen values. No protobuf type leaves the library."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from keystow.v1 import storage_pb2, tenants_pb2

_E = TypeVar("_E", bound=StrEnum)


class WriteMode(StrEnum):
    """What a Put does about an object that has the key already."""

    CREATE = "create"  # refuse: OBJECT_EXISTS
    OVERWRITE = "overwrite"  # replace the version that is current when the Put begins


class KeyManagement(StrEnum):
    """Who manages a tenant's KMS key."""

    PROVIDER = "provider"
    SELF = "self"
    UNKNOWN = "unknown"  # said by a newer server


class KeyState(StrEnum):
    """What the last use or probe of a KMS key showed."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    PENDING_DELETION = "pending_deletion"
    PENDING_IMPORT = "pending_import"
    UNAVAILABLE = "unavailable"
    NOT_FOUND = "not_found"
    ACCESS_DENIED = "access_denied"
    UNKNOWN = "unknown"  # not probed yet, or said by a newer server


class CheckOutcome(StrEnum):
    """How one check of a key ended."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"  # works, but the customer should know
    SKIPPED = "skipped"  # an earlier check failed
    UNKNOWN = "unknown"  # said by a newer server


class KeyPolicyFormat(StrEnum):
    """How a key policy is rendered."""

    KEY_POLICY_JSON = "key-policy-json"  # the statements to add to the policy of a key that exists
    CLOUDFORMATION = "cloudformation"  # makes the key
    TERRAFORM = "terraform"  # makes the key
    CONSOLE_STEPS = "console-steps"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A committed object. Sizes in bytes; ``size`` is the plaintext's.

    List knows neither checksum, content type, metadata nor KMS key: all are sealed in the object. There, create_time is
    when the store committed the object, otherwise when its Put began.
    """

    tenant_id: str
    key: str
    version_id: str  # names this exact content; changes with every overwrite
    size: int
    stored_size: int
    crc32c: int | None
    sha256: bytes | None  # only where the server itself verified it
    content_type: str
    metadata: Mapping[str, str]
    create_time: datetime | None
    kms_key_arn: str

    @classmethod
    def from_proto(cls, info: storage_pb2.ObjectInfo) -> "ObjectInfo":
        """The same facts without protobuf."""
        return cls(
            tenant_id=info.tenant_id,
            key=info.key,
            version_id=info.version_id,
            size=info.size,
            stored_size=info.stored_size,
            crc32c=info.crc32c if info.HasField("crc32c") else None,
            sha256=info.sha256 or None,
            content_type=info.content_type,
            metadata=dict(info.metadata),
            create_time=_time(info, "create_time"),
            kms_key_arn=info.kms_key_arn,
        )


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Some of a tenant's objects. ``next_page_token`` is empty on the last page."""

    objects: tuple[ObjectInfo, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """What the service has of an unfinished upload, and all that another process needs to go on with it.

    The token tells nothing about the content, but lets whoever may write the object finish or discard this upload.
    """

    upload_id: str
    persisted_size: int
    resume_token: bytes
    expire_time: datetime | None  # from then on it can only begin anew
    crc32c: int | None  # of the first persisted_size bytes, where it is known

    @classmethod
    def from_proto(cls, progress: storage_pb2.UploadProgress, upload_id: str, crc32c: int | None) -> "UploadProgress":
        """The same facts without protobuf, and what only the client knows."""
        return cls(
            upload_id=upload_id,
            persisted_size=progress.persisted_size,
            resume_token=progress.resume_token,
            expire_time=_time(progress, "expire_time"),
            crc32c=crc32c,
        )


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """What the last use or probe of a tenant's key showed."""

    state: KeyState
    check_time: datetime | None
    since_time: datetime | None
    deletion_time: datetime | None
    revocation_bound: timedelta | None  # how long plaintext may still flow after the key is disabled
    reason: str
    aws_request_id: str
    last_success_time: datetime | None

    @classmethod
    def from_proto(cls, health: tenants_pb2.KeyHealth) -> "KeyHealth":
        """The same facts without protobuf."""
        return cls(
            state=_enum(KeyState, tenants_pb2.KeyState, health.state, "KEY_STATE_"),
            check_time=_time(health, "check_time"),
            since_time=_time(health, "since_time"),
            deletion_time=_time(health, "deletion_time"),
            revocation_bound=health.revocation_bound.ToTimedelta() if health.HasField("revocation_bound") else None,
            reason=health.reason,
            aws_request_id=health.aws_request_id,
            last_success_time=_time(health, "last_success_time"),
        )


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and its permanent choices."""

    tenant_id: str
    display_name: str
    key_management: KeyManagement
    kms_key_arn: str
    data_center: str
    create_time: datetime | None
    key_health: KeyHealth | None

    @classmethod
    def from_proto(cls, tenant: tenants_pb2.Tenant) -> "Tenant":
        """The same facts without protobuf."""
        return cls(
            tenant_id=tenant.tenant_id,
            display_name=tenant.display_name,
            key_management=_enum(KeyManagement, tenants_pb2.KeyManagement, tenant.key_management, "KEY_MANAGEMENT_"),
            kms_key_arn=tenant.kms_key_arn,
            data_center=tenant.data_center,
            create_time=_time(tenant, "create_time"),
            key_health=KeyHealth.from_proto(tenant.key_health) if tenant.HasField("key_health") else None,
        )


@dataclass(frozen=True, slots=True)
class TenantPage:
    """Some tenants. ``next_page_token`` is empty on the last page."""

    tenants: tuple[Tenant, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """One check that a self-managed key went through, such as "arn.region"."""

    name: str
    outcome: CheckOutcome
    detail: str  # what was found and what to do about it

    @classmethod
    def from_proto(cls, check: tenants_pb2.KeyCheck) -> "KeyCheck":
        """The same facts without protobuf."""
        return cls(
            name=check.name,
            outcome=_enum(CheckOutcome, tenants_pb2.KeyCheck.Outcome, check.outcome, "OUTCOME_"),
            detail=check.detail,
        )


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What was found of a customer's key: every check, in order, and the state that they showed."""

    usable: bool  # none of them failed
    state: KeyState
    checks: tuple[KeyCheck, ...]

    @classmethod
    def from_proto(cls, response: tenants_pb2.CheckKeyResponse) -> "KeyReport":
        """The same facts without protobuf."""
        return cls(
            usable=response.usable,
            state=_enum(KeyState, tenants_pb2.KeyState, response.state, "KEY_STATE_"),
            checks=tuple(map(KeyCheck.from_proto, response.checks)),
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered tenant, and the checks its key passed; warnings among them are for the customer."""

    tenant: Tenant
    checks: tuple[KeyCheck, ...]


@dataclass(frozen=True, slots=True)
class DataCenter:
    """Where a tenant can be placed; its key must be in the region."""

    name: str
    display_name: str
    region: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's version and limits: sizes in bytes, the stall timeout in seconds."""

    version: str
    max_object_size: int
    max_chunk_size: int
    max_small_object_size: int
    max_key_size: int
    max_metadata_size: int
    max_page_size: int
    stall_timeout_seconds: int
    features: tuple[str, ...]

    @classmethod
    def from_proto(cls, info: storage_pb2.GetServerInfoResponse) -> "ServerInfo":
        """The same facts without protobuf."""
        return cls(
            version=info.version,
            max_object_size=info.max_object_size,
            max_chunk_size=info.max_chunk_size,
            max_small_object_size=info.max_small_object_size,
            max_key_size=info.max_key_size,
            max_metadata_size=info.max_metadata_size,
            max_page_size=info.max_page_size,
            stall_timeout_seconds=info.stall_timeout_seconds,
            features=tuple(info.features),
        )


class _ProtoEnum(Protocol):
    def Name(self, number: Any, /) -> str: ...  # noqa: N802 - protobuf's name


def _enum(kind: type[_E], names: _ProtoEnum, number: int, prefix: str) -> _E:
    """The client's word for a protobuf enum value; UNKNOWN for unspecified values and those of newer servers."""
    try:
        return kind(names.Name(number).removeprefix(prefix).lower())
    except ValueError:
        return kind("unknown")


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)
