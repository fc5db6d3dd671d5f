"""What a caller asks to export, in plain values, and what a checkpoint token of it is bound to."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from keystow_service.model import Caller, ObjectKey, TenantId


class ArchiveFormat(Enum):
    """How the objects are put together."""

    TAR = "tar"
    ZIP = "zip"


class ErrorPolicy(Enum):
    """What a damaged or vanished object does to the rest."""

    STOP = "stop"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Prefix:
    """Every object whose key starts with ``text``."""

    text: str


@dataclass(frozen=True, slots=True)
class Keys:
    """These objects, in this order; no key twice."""

    keys: tuple[ObjectKey, ...]


@dataclass(frozen=True, slots=True)
class ExportCommand:
    """The objects to export, as one archive."""

    caller: Caller
    tenant_id: TenantId
    selection: Prefix | Keys
    format: ArchiveFormat = ArchiveFormat.TAR
    on_error: ErrorPolicy = ErrorPolicy.STOP
    checkpoint_token: bytes = b""

    def scope(self) -> bytes:
        """SHA-256 over all that a continuation must repeat.

        Every field is preceded by its length, so that no two commands give the same text.
        """
        digest = hashlib.sha256(b"keystow/v1/export")
        for text in self._scope():
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return digest.digest()

    def _scope(self) -> Iterator[str]:
        yield from (self.tenant_id, self.caller.principal, self.format.value, self.on_error.value)
        match self.selection:
            case Prefix(text):
                yield from ("prefix", text)
            case Keys(keys):
                yield from ("keys", *keys)
