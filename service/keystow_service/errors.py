"""Every failure keystow decides on, by reason. Knows neither gRPC nor botocore.

A class is one row of docs/errors.md: its docstring is the condition, ``reason`` the machine-readable name that never
changes, ``recovery`` what a client does about it. ``rpc/status.py`` adds the gRPC code. The message is for operators
and callers alike: it says what to do and never holds plaintext, a key, or another exception's text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypedDict, Unpack


class Recovery(StrEnum):
    """What helps, for clients that have never heard of the reason."""

    RETRY = "retry"  # the same call, later
    RESUME = "resume"  # continue from the last token or offset
    RESTART = "restart"  # a new upload or call from the beginning
    WAIT = "wait"  # somebody must change something first
    NONE = "none"  # nothing will help


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: a request field, or a named check of a key."""

    subject: str
    description: str


class Details(TypedDict, total=False):
    """What an error is about; becomes ErrorInfo.metadata."""

    tenant_id: str
    key_arn: str
    key_state: str
    deletion_time: str  # ISO 8601, where a key's deletion is pending
    object_key: str
    upload_id: str
    persisted_size: str
    aws_request_id: str


class KeystowError(Exception):
    """A failure with a reason."""

    reason: ClassVar[str]
    recovery: ClassVar[Recovery]

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        **details: Unpack[Details],
    ) -> None:
        """``retry_after`` is in seconds; ``details`` are public."""
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.details = details


# --- The tenant's key -------------------------------------------------------------------------------------------------


class KeyRefusal(KeystowError):  # noqa: N818 - a group, not a reason
    """KMS answered that the key may not be used: the lease on it ends at once."""


class KmsKeyDisabledError(KeyRefusal):
    """The tenant's KMS key is disabled."""

    reason = "KMS_KEY_DISABLED"
    recovery = Recovery.WAIT


class KmsKeyPendingDeletionError(KeyRefusal):
    """The tenant's KMS key is scheduled for deletion."""

    reason = "KMS_KEY_PENDING_DELETION"
    recovery = Recovery.WAIT


class KmsKeyPendingImportError(KeyRefusal):
    """The tenant's KMS key waits for its key material to be imported."""

    reason = "KMS_KEY_PENDING_IMPORT"
    recovery = Recovery.WAIT


class KmsKeyStoreUnavailableError(KeyRefusal):
    """The custom or external key store that holds the tenant's KMS key cannot be reached."""

    reason = "KMS_KEY_STORE_UNAVAILABLE"
    recovery = Recovery.RETRY


class KmsKeyTransitioningError(KeyRefusal):
    """The tenant's KMS key is being created or updated."""

    reason = "KMS_KEY_TRANSITIONING"
    recovery = Recovery.RETRY


class KmsKeyNotFoundError(KeyRefusal):
    """The tenant's KMS key is deleted, or was never there."""

    reason = "KMS_KEY_NOT_FOUND"
    recovery = Recovery.NONE


class KmsAccessDeniedError(KeyRefusal):
    """The key policy, a grant or IAM does not let the service use the tenant's KMS key."""

    reason = "KMS_ACCESS_DENIED"
    recovery = Recovery.WAIT


class KmsKeyUsageInvalidError(KeyRefusal):
    """The KMS key is not a symmetric encryption key."""

    reason = "KMS_KEY_USAGE_INVALID"
    recovery = Recovery.NONE


class KmsGrantInvalidError(KeyRefusal):
    """KMS refused the grant token."""

    reason = "KMS_GRANT_INVALID"
    recovery = Recovery.NONE


class WrappedKeyInvalidError(KeystowError):
    """KMS cannot unwrap the object's data key: the stored key is damaged, or belongs to another KMS key or tenant."""

    reason = "WRAPPED_KEY_INVALID"
    recovery = Recovery.NONE


class KmsUnavailableError(KeystowError):
    """KMS did not answer, or answered with an internal failure."""

    reason = "KMS_UNAVAILABLE"
    recovery = Recovery.RETRY


class KmsThrottledError(KeystowError):
    """KMS went on throttling after retries."""

    reason = "KMS_THROTTLED"
    recovery = Recovery.RETRY


class ProviderCredentialsError(KeystowError):
    """AWS refused the service's own credentials. Alarm."""

    reason = "PROVIDER_CREDENTIALS"
    recovery = Recovery.RETRY


# --- Tenants ----------------------------------------------------------------------------------------------------------


class TenantNotFoundError(KeystowError):
    """There is no such tenant."""

    reason = "TENANT_NOT_FOUND"
    recovery = Recovery.NONE


class TenantExistsError(KeystowError):
    """The tenant is registered already, with another choice."""

    reason = "TENANT_EXISTS"
    recovery = Recovery.NONE


class KmsKeyInUseError(KeystowError):
    """The KMS key is bound to another tenant already."""

    reason = "KMS_KEY_IN_USE"
    recovery = Recovery.NONE


class KmsKeyUnusableError(KeystowError):
    """A self-managed key failed its checks; one violation per failed check."""

    reason = "KMS_KEY_UNUSABLE"
    recovery = Recovery.WAIT


class KmsKeyArnInvalidError(KeystowError):
    """The text is not the full ARN of a KMS key: malformed, an alias, a bare id, or another partition."""

    reason = "KMS_KEY_ARN_INVALID"
    recovery = Recovery.NONE


class KmsKeyRegionMismatchError(KeystowError):
    """The KMS key is in another region than the data centre."""

    reason = "KMS_KEY_REGION_MISMATCH"
    recovery = Recovery.NONE


class KeyPolicyUnavailableError(KeystowError):
    """There is no AWS principal to grant a key to: kms_principal_arn is not set, or the keys are not in AWS KMS."""

    reason = "KEY_POLICY_UNAVAILABLE"
    recovery = Recovery.WAIT


class RegistryUnavailableError(KeystowError):
    """The tenant registry cannot be reached."""

    reason = "REGISTRY_UNAVAILABLE"
    recovery = Recovery.RETRY


# --- Objects ----------------------------------------------------------------------------------------------------------


class ObjectNotFoundError(KeystowError):
    """There is no such object."""

    reason = "OBJECT_NOT_FOUND"
    recovery = Recovery.NONE


class ObjectExistsError(KeystowError):
    """The object must not exist, and does."""

    reason = "OBJECT_EXISTS"
    recovery = Recovery.NONE


class VersionMismatchError(KeystowError):
    """if_version_id names another version than the current one."""

    reason = "VERSION_MISMATCH"
    recovery = Recovery.NONE


class ObjectArchivedError(KeystowError):
    """The object is in an archive storage class and must be restored first."""

    reason = "OBJECT_ARCHIVED"
    recovery = Recovery.WAIT


class ObjectTamperedError(KeystowError):
    """A segment, the footer or the metadata does not verify, or another object stands in this place."""

    reason = "OBJECT_TAMPERED"
    recovery = Recovery.NONE


class ObjectTruncatedError(KeystowError):
    """The stored object is shorter or longer than what was written."""

    reason = "OBJECT_TRUNCATED"
    recovery = Recovery.NONE


class ObjectHeaderInvalidError(KeystowError):
    """The stored object's header cannot be read, or does not verify."""

    reason = "OBJECT_HEADER_INVALID"
    recovery = Recovery.NONE


class ObjectFormatUnsupportedError(KeystowError):
    """The stored object has a format version or cipher suite that this server does not know."""

    reason = "OBJECT_FORMAT_UNSUPPORTED"
    recovery = Recovery.NONE


class ChecksumMismatchError(KeystowError):
    """The bytes received have another checksum than the one sent with them."""

    reason = "CHECKSUM_MISMATCH"
    recovery = Recovery.RESTART


class OffsetMismatchError(KeystowError):
    """A chunk does not start where the one before it ended."""

    reason = "OFFSET_MISMATCH"
    recovery = Recovery.RESUME


class SizeMismatchError(KeystowError):
    """The object is shorter or longer than PutHeader.size or PutFinish.size says."""

    reason = "SIZE_MISMATCH"
    recovery = Recovery.RESUME


class RangeNotSatisfiableError(KeystowError):
    """The range starts past the object's end."""

    reason = "RANGE_NOT_SATISFIABLE"
    recovery = Recovery.NONE


class ObjectChangedError(KeystowError):
    """version_id is no longer current, or the object was replaced while it was being read."""

    reason = "OBJECT_CHANGED"
    recovery = Recovery.RESTART


class ObjectTooLargeError(KeystowError):
    """The object is larger than the server's limit, or passes 400 GiB without PutHeader.size."""

    reason = "OBJECT_TOO_LARGE"
    recovery = Recovery.NONE


# --- Requests ---------------------------------------------------------------------------------------------------------


class PageTokenInvalidError(KeystowError):
    """The page token is unreadable, or belongs to another request."""

    reason = "PAGE_TOKEN_INVALID"
    recovery = Recovery.RESTART


class CheckpointTokenInvalidError(KeystowError):
    """The checkpoint token is unreadable, or belongs to another export."""

    reason = "CHECKPOINT_TOKEN_INVALID"
    recovery = Recovery.RESTART


class RequestInvalidError(KeystowError):
    """A message is unreadable or out of order, PutFinish is missing, or a field breaks its rule."""

    reason = "REQUEST_INVALID"
    recovery = Recovery.NONE


class NotImplementedYetError(KeystowError):
    """This server does not offer the call or option yet."""

    reason = "NOT_IMPLEMENTED"
    recovery = Recovery.NONE


class InternalError(KeystowError):
    """The service met a failure it has no name for. Find requestId in its log."""

    reason = "INTERNAL"
    recovery = Recovery.RETRY


# --- Uploads ----------------------------------------------------------------------------------------------------------


class ResumeTokenInvalidError(KeystowError):
    """The resume token is unreadable, or belongs to another upload."""

    reason = "RESUME_TOKEN_INVALID"
    recovery = Recovery.RESTART


class UploadExpiredError(KeystowError):
    """The store no longer knows the upload, or its time is over."""

    reason = "UPLOAD_EXPIRED"
    recovery = Recovery.RESTART


class UploadSupersededError(KeystowError):
    """Another stream has replaced parts of this upload: who went on with it, or one that broke, with a late part."""

    reason = "UPLOAD_SUPERSEDED"
    recovery = Recovery.NONE


class WriteConflictError(KeystowError):
    """The version to be replaced is no longer current, or a concurrent write won."""

    reason = "WRITE_CONFLICT"
    recovery = Recovery.RESTART


class UploadIdReusedError(KeystowError):
    """The current object was written under this upload_id with another header, caller, size or checksum."""

    reason = "UPLOAD_ID_REUSED"
    recovery = Recovery.NONE


class UploadReplacedError(KeystowError):
    """An object was stored under this upload_id, and has been replaced since. What stands is left as it is."""

    reason = "UPLOAD_REPLACED"
    recovery = Recovery.NONE


# --- The store --------------------------------------------------------------------------------------------------------


class StoreUnavailableError(KeystowError):
    """The object store did not answer, or answered with an internal failure, after retries."""

    reason = "STORE_UNAVAILABLE"
    recovery = Recovery.RETRY


class StoreThrottledError(KeystowError):
    """The object store went on throttling after retries."""

    reason = "STORE_THROTTLED"
    recovery = Recovery.RETRY


class StoreMisconfiguredError(KeystowError):
    """The bucket is missing, or the service may not use it. Alarm."""

    reason = "STORE_MISCONFIGURED"
    recovery = Recovery.WAIT


class StoreFullError(KeystowError):
    """The local store's disk is full."""

    reason = "STORE_FULL"
    recovery = Recovery.WAIT


# --- Callers and load -------------------------------------------------------------------------------------------------


class CredentialsInvalidError(KeystowError):
    """The caller sent no credentials, or bad ones."""

    reason = "CREDENTIALS_INVALID"
    recovery = Recovery.NONE


class CallerNotAuthorizedError(KeystowError):
    """The caller may not do this to this tenant. Checked before existence."""

    reason = "CALLER_NOT_AUTHORIZED"
    recovery = Recovery.NONE


class QuotaExceededError(KeystowError):
    """A quota of the tenant or caller is used up."""

    reason = "QUOTA_EXCEEDED"
    recovery = Recovery.RETRY


class OverloadedError(KeystowError):
    """The server's stream limit or buffer budget is used up."""

    reason = "OVERLOADED"
    recovery = Recovery.RETRY


class StreamStalledError(KeystowError):
    """The peer sent or read nothing for longer than the stall timeout."""

    reason = "STREAM_STALLED"
    recovery = Recovery.RESUME


class AuditUnavailableError(KeystowError):
    """The server must not do what it cannot write to its audit log, and it cannot write. Alarm."""

    reason = "AUDIT_UNAVAILABLE"
    recovery = Recovery.RETRY


class ShuttingDownError(KeystowError):
    """The server is shutting down."""

    reason = "SHUTTING_DOWN"
    recovery = Recovery.RETRY
