"""Manifests: members of the archive that tell, in a line of JSON for each object, what it was or why it is missing."""

import json
from datetime import UTC, datetime

from keystow_service.errors import KeystowError
from keystow_service.model import ObjectInfo, ObjectKey
from keystow_service.objects.export.member_names import RESERVED

# Of a manifest none of whose objects could be exported; others are as new as their newest object. Never the time of the
# export, so that exports of the same objects are the same bytes.
_NO_TIME = datetime(1980, 1, 1, tzinfo=UTC)


class Manifest:
    """The lines since the last one."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self.size = 0  # bytes
        self.object_bytes = 0  # plaintext of the objects in it
        self.modified = _NO_TIME

    def __len__(self) -> int:
        """How many objects it lists."""
        return len(self._lines)

    def add(self, info: ObjectInfo, member_name: str) -> None:
        """An object that is in the archive."""
        line = {
            "key": info.key,
            "member": member_name,
            "version_id": info.version_id,
            "size": info.size,
            "crc32c": f"{info.crc32c or 0:08x}",
            "sha256": info.sha256.hex() if info.sha256 else None,
            "create_time": info.create_time.isoformat(),
            "content_type": info.content_type,
            "metadata": dict(sorted(info.metadata.items())),
        }
        self.modified = max(self.modified, info.create_time)
        self.object_bytes += info.size
        self._append({name: value for name, value in line.items() if value is not None})

    def add_failed(self, key: ObjectKey, error: KeystowError) -> None:
        """An object that is not."""
        self._append({"key": key, "error": error.reason, "message": error.message})

    def content(self) -> bytes:
        """ASCII: JSON escapes the rest, so that nothing but line feeds ends a line."""
        return b"".join(self._lines)

    def _append(self, line: dict[str, object]) -> None:
        encoded = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        self._lines.append(encoded)
        self.size += len(encoded)


def manifest_name(number: int) -> str:
    """Of the manifest with this number, from 1 on."""
    return f"{RESERVED}/MANIFEST-{number:05}.jsonl"
