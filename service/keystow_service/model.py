"""The words keystow thinks in: plain, frozen values, free of protobuf, gRPC and AWS types."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import NewType, Self

from keystow_service.errors import KmsKeyArnInvalidError, Violation

TenantId = NewType("TenantId", str)  # 3 to 63 of a-z, 0-9, '-', starting with a letter
ObjectKey = NewType("ObjectKey", str)  # any text of 1 to MAX_KEY_SIZE escaped bytes; never a path
UploadId = NewType("UploadId", str)  # a UUID, chosen by the client

MIB = 1 << 20
GIB = 1 << 30

MAX_CHUNK_SIZE = 2 * MIB
MAX_SMALL_OBJECT_SIZE = 2 * MIB
MAX_KEY_SIZE = 900  # bytes after escaping, see objects/names.py
MAX_METADATA_SIZE = 1024  # bytes, encoded
MAX_CONTENT_TYPE_SIZE = 255  # bytes
MAX_PAGE_SIZE = 1000
MAX_EXPORT_KEYS = 4000  # of the longest, with what is around them, fit one message

_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]+):kms:(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]):(?P<account>[0-9]{12}):"
    r"key/(?P<key_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32})"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated principal of a call."""

    principal: str


ANONYMOUS = Caller("anonymous")


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What the server shows to clients, and whose certificates it wants of them: PEM, checked, fit for use together."""

    certificate_chain: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes | None  # None: clients need no certificate
    serial: str  # of the certificate, hexadecimal
    not_after: datetime


@dataclass(frozen=True, slots=True)
class KeyArn:
    """The full ARN of one KMS key (https://docs.aws.amazon.com/kms/latest/developerguide/concepts-key-id.html)."""

    text: str
    region: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Aliases are refused because they can be retargeted, bare ids because they name no account and region.

        Raises KmsKeyArnInvalidError.
        """
        match = _ARN.fullmatch(text)
        if match is None and "alias/" in text:
            problem = "is an alias, which can be pointed to another key at any time"
        elif match is None and text != text.strip() and _ARN.fullmatch(text.strip()):
            problem = "has white space around it"
        elif match is None:
            problem = "is not of the form arn:aws:kms:<region>:<12-digit account>:key/<key id>"
        elif match["partition"] != "aws":
            problem = "is in another partition than aws"
        else:
            return cls(text, match["region"])
        raise KmsKeyArnInvalidError(
            f"The key ARN {problem}. Paste the key's full ARN, as the KMS console shows it.",
            violations=[Violation("kms_key_arn", problem)],
        )

    @property
    def identity(self) -> str:
        """Account and key id: the replicas of a multi-Region key, which are one key in several regions, share it.

        https://docs.aws.amazon.com/kms/latest/developerguide/multi-region-keys-overview.html
        """
        return self.text.split(":", 4)[4]

    def __str__(self) -> str:
        """The ARN."""
        return self.text


class KeyManagement(Enum):
    """Who manages a tenant's KMS key."""

    PROVIDER = "provider"
    SELF = "self"


class KeyState(Enum):
    """What KMS says of a key; names as in the API."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    PENDING_DELETION = "PENDING_DELETION"
    PENDING_IMPORT = "PENDING_IMPORT"
    UNAVAILABLE = "UNAVAILABLE"
    NOT_FOUND = "NOT_FOUND"
    ACCESS_DENIED = "ACCESS_DENIED"


class KmsOperation(Enum):
    """What KMS is asked for: it grants each apart. Names are KMS's own."""

    GENERATE_DATA_KEY = "GenerateDataKey"
    DECRYPT = "Decrypt"
    DESCRIBE_KEY = "DescribeKey"


class KeyOrigin(Enum):
    """Where a KMS key's material comes from; values as in KMS DescribeKey."""

    AWS_KMS = "AWS_KMS"
    EXTERNAL = "EXTERNAL"  # imported
    AWS_CLOUDHSM = "AWS_CLOUDHSM"
    EXTERNAL_KEY_STORE = "EXTERNAL_KEY_STORE"
    OTHER = "OTHER"  # what this release has never heard of


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What KMS DescribeKey says of a key that exists."""

    arn: KeyArn
    state: KeyState
    customer_managed: bool
    symmetric_encryption: bool  # KeySpec SYMMETRIC_DEFAULT and KeyUsage ENCRYPT_DECRYPT
    origin: KeyOrigin
    multi_region: bool
    valid_to: datetime | None = None  # when imported material expires
    deletion_time: datetime | None = None
    request_id: str = ""  # as DataKey's
    transitioning: bool = False  # unavailable because it is being made or changed, and not for want of its key store


@dataclass(frozen=True, slots=True)
class KeyObservation:
    """What one use or probe of a key showed of its state."""

    state: KeyState
    time: datetime
    reason: str = ""  # of the error, unless the key is enabled
    request_id: str = ""  # as DataKey's
    deletion_time: datetime | None = None  # where deletion is pending, and KMS says for when
    operation: KmsOperation | None = None  # that showed it; None where that is not remembered


_STANDS = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """How a tenant's key does: what shows its state best, and since when it is so.

    KMS grants operations apart, so one may be refused while another works. The worse of the two is the key's state,
    until the operation that showed it shows something else. What is known of the key itself stands beside a denial for
    an hour after it was last shown, an announced deletion until its date, and neither once DescribeKey contradicts.
    """

    newest: KeyObservation
    since_time: datetime
    last_success_time: datetime | None
    shown_by: frozenset[KmsOperation] = frozenset()  # the operations that last showed this state

    @classmethod
    def first(cls, seen: KeyObservation) -> Self:
        """Of a key of which nothing was known."""
        success = seen.state is KeyState.ENABLED and seen.operation is not KmsOperation.DESCRIBE_KEY
        return cls(seen, seen.time, seen.time if success else None, frozenset(filter(None, (seen.operation,))))

    def then(self, seen: KeyObservation) -> "KeyHealth":
        """After another observation, which may have been made earlier: it tells nothing of the state then."""
        first = KeyHealth.first(seen)
        last_success_time = max(filter(None, (self.last_success_time, first.last_success_time)), default=None)
        if seen.time < self.newest.time:
            return replace(self, last_success_time=last_success_time)
        if self._withdrawn_by(seen):
            newest = replace(self.newest, deletion_time=None)
            return replace(self, newest=newest, shown_by=frozenset())
        if self._outweighs(seen):
            return replace(self, last_success_time=last_success_time, shown_by=self.shown_by - first.shown_by)
        if seen.state is not self.newest.state:
            return replace(first, last_success_time=last_success_time)
        # DescribeKey may be refused where its answer was known before: the date of the deletion stands.
        newest = replace(seen, deletion_time=seen.deletion_time or self.announced(seen.time))
        return KeyHealth(newest, self.since_time, last_success_time, self.shown_by | first.shown_by)

    def announced(self, now: datetime) -> datetime | None:
        """The date of a deletion, if it is still to come."""
        date = self.newest.deletion_time
        return date if date is not None and now < date else None

    def denies(self, operation: KmsOperation) -> bool:
        """Whether that was denied when it was last tried."""
        return self.newest.state is KeyState.ACCESS_DENIED and operation in self.shown_by

    def _withdrawn_by(self, seen: KeyObservation) -> bool:
        """Whether what is known of the key itself is no longer so, and only its next use tells how it is."""
        about_uses = (KeyState.ENABLED, KeyState.ACCESS_DENIED, KeyState.UNAVAILABLE)
        described = seen.operation is KmsOperation.DESCRIBE_KEY and seen.state is KeyState.ENABLED
        return described and self.newest.state not in about_uses

    def _outweighs(self, seen: KeyObservation) -> bool:
        """Whether what was seen says less of the key than what is known."""
        known = self.newest.state
        if seen.operation is KmsOperation.DESCRIBE_KEY and seen.state in (KeyState.ENABLED, KeyState.ACCESS_DENIED):
            return True  # whether a key may be used, and its store answers, only its use shows
        by_others = bool(self.shown_by - {seen.operation})
        if seen.state is KeyState.ACCESS_DENIED:  # says nothing of the key itself
            if self.newest.deletion_time is not None:
                return self.announced(seen.time) is not None
            lately = seen.time - self.newest.time < _STANDS
            return by_others and lately and known not in (KeyState.ENABLED, KeyState.ACCESS_DENIED)
        return by_others and known is KeyState.ACCESS_DENIED and seen.state is KeyState.ENABLED


@dataclass(frozen=True, slots=True)
class KeyHealthStep:
    """What one observation made of a key's health."""

    before: KeyHealth | None  # None: nothing was known
    after: KeyHealth

    @classmethod
    def of(cls, known: KeyHealth | None, seen: KeyObservation) -> Self:
        """What ``seen`` makes of what is known."""
        return cls(known, known.then(seen) if known else KeyHealth.first(seen))

    @property
    def changes_state(self) -> bool:
        """Whether the key is seen in another state; the first one is another."""
        return self.before is None or self.before.newest.state is not self.after.newest.state


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key with its KMS ciphertext. The plaintext never appears in a repr."""

    plaintext: bytes = field(repr=False)  # 32 bytes
    wrapped: bytes = field(repr=False)
    request_id: str = ""  # of the request that made or unwrapped it, as in CloudTrail; KMS gives one, the keyring none


@dataclass(frozen=True, slots=True)
class DataCenter:
    """A region where tenants can be placed."""

    name: str
    display_name: str
    region: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and its permanent choices."""

    tenant_id: TenantId
    display_name: str
    key_management: KeyManagement
    key_arn: KeyArn
    data_center: str
    create_time: datetime

    def same_choice(self, other: "Tenant") -> bool:
        """Whether two registrations say the same; the time they were made aside."""
        return replace(self, create_time=other.create_time) == other


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A committed object. The optional fields are sealed in the object: List does not know them."""

    tenant_id: TenantId
    key: ObjectKey
    version_id: str
    size: int
    stored_size: int
    create_time: datetime
    crc32c: int | None = None
    sha256: bytes | None = None
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    kms_key_arn: str = ""
