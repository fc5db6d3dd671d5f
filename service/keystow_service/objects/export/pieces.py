"""What an export gives, beside the Chunks of the archive."""

from dataclasses import dataclass
from typing import TypeAlias

from keystow_service.envelope.checkpoint import ExportPosition
from keystow_service.errors import KeystowError
from keystow_service.model import ObjectInfo, ObjectKey, TenantId


@dataclass(frozen=True, slots=True)
class Exported:
    """This object is in the archive."""

    info: ObjectInfo
    member_name: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This object is not."""

    tenant_id: TenantId
    key: ObjectKey
    error: KeystowError


Entry: TypeAlias = Exported | Failed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The export can go on from here."""

    token: bytes
    archive_size: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The end. All but ``crc32c`` is of the whole archive, also of what earlier streams sent."""

    position: ExportPosition
    archive_size: int
    crc32c: int
