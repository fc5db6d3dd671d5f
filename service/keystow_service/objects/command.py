"""What a caller asks for, in plain values: the arguments of the use cases."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from keystow_service.model import Caller, ObjectKey, TenantId, UploadId


class WriteMode(Enum):
    """What may stand at the key before."""

    CREATE = "create"  # nothing
    OVERWRITE = "overwrite"  # whatever is current when the Put begins
    IF_VERSION = "if-version"  # exactly PutCommand.if_version_id


@dataclass(frozen=True, slots=True)
class PutCommand:
    """One object to store. Sizes in bytes."""

    caller: Caller
    tenant_id: TenantId
    key: ObjectKey
    upload_id: UploadId
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    mode: WriteMode = WriteMode.CREATE
    if_version_id: str = ""
    sha256: bool = False
    at_once: bool = False  # the content is small, and has come with the command

    def fingerprint(self) -> bytes:
        """SHA-256 over all that distinguishes one Put from another under the same upload_id.

        Tenant, key, upload id and caller are compared on their own. Every field is preceded by its length, so that no
        two commands give the same text.
        """
        digest = hashlib.sha256(b"keystow/v1/put-header")
        pairs = [text for pair in sorted(self.metadata.items()) for text in pair]
        size = "" if self.size is None else str(self.size)
        for text in (self.content_type, size, self.mode.value, self.if_version_id, str(self.sha256), *pairs):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of plaintext bytes at ``offset``; ``crc32c`` is checked where given."""

    offset: int
    data: bytes
    crc32c: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a Put: nothing follows, and this is what was sent."""

    size: int
    crc32c: int | None = None
    sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class GetCommand:
    """One object, or a range of it, to read. A negative ``offset`` counts from the end."""

    tenant_id: TenantId
    key: ObjectKey
    version_id: str = ""
    offset: int = 0
    length: int | None = None
