"""The keystow client: store, restore, list and export backup objects, and manage their tenants.

``AsyncClient`` for asyncio, ``Client`` for everything else. Errors are KeystowError and its subclasses.
"""

from keystow_client.aio import AsyncClient
from keystow_client.allocator import tune_allocator
from keystow_client.errors import (
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    IncompleteError,
    IntegrityError,
    InvalidRequestError,
    KeystowError,
    NotFoundError,
    PermissionDeniedError,
    Recovery,
    ResourceExhaustedError,
    SourceChangedError,
    TlsError,
    TransportError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
    is_object_not_found,
)
from keystow_client.export import AsyncExport
from keystow_client.export_models import (
    ArchiveFormat,
    ErrorPolicy,
    ExportCheckpoint,
    ExportEntry,
    ExportSummary,
)
from keystow_client.get import AsyncDownload
from keystow_client.iterators import Download, Export
from keystow_client.models import (
    CheckOutcome,
    DataCenter,
    KeyCheck,
    KeyHealth,
    KeyManagement,
    KeyPolicyFormat,
    KeyReport,
    KeyState,
    ObjectInfo,
    ObjectPage,
    Registration,
    ServerInfo,
    Tenant,
    TenantPage,
    UploadProgress,
    WriteMode,
)
from keystow_client.retry import NO_RETRIES, RetryPolicy
from keystow_client.sync import Client
from keystow_client.threads import OwnThread
from keystow_client.tls import Tls

__all__ = [
    "NO_RETRIES",
    "AbortedError",
    "AlreadyExistsError",
    "ArchiveFormat",
    "AsyncClient",
    "AsyncDownload",
    "AsyncExport",
    "CheckOutcome",
    "Client",
    "DataCenter",
    "DataLossError",
    "Download",
    "ErrorPolicy",
    "Export",
    "ExportCheckpoint",
    "ExportEntry",
    "ExportSummary",
    "FailedPreconditionError",
    "IncompleteError",
    "IntegrityError",
    "InvalidRequestError",
    "KeyCheck",
    "KeyHealth",
    "KeyManagement",
    "KeyPolicyFormat",
    "KeyReport",
    "KeyState",
    "KeystowError",
    "NotFoundError",
    "ObjectInfo",
    "ObjectPage",
    "OwnThread",
    "PermissionDeniedError",
    "Recovery",
    "Registration",
    "ResourceExhaustedError",
    "RetryPolicy",
    "ServerInfo",
    "SourceChangedError",
    "Tenant",
    "TenantPage",
    "Tls",
    "TlsError",
    "TransportError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UploadProgress",
    "Violation",
    "WriteMode",
    "is_object_not_found",
    "tune_allocator",
]
