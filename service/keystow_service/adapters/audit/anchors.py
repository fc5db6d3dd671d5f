"""Checkpoints that were kept elsewhere: in the server's own log, which is usually sent off the machine at once.

Whoever gets hold of the disk and the signing key can write another audit log, but not take these back.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.line import End
from keystow_service.adapters.audit.source import Claim

_EVENT = "audit_checkpoint"


def read_anchors(path: Path) -> Iterator[Claim]:
    """From a log with the server's lines, as JSON, among whatever else. Raises OSError, AuditError: there are none."""
    none = True
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if _EVENT.encode() not in line:
                continue
            try:
                found = json.loads(line[line.index(b"{") :])  # log collectors put a time in front
            except (ValueError, RecursionError):
                continue
            match found:
                case {"event": "audit_checkpoint", "writer": str(writer), "seq": int(seq), "hash": str(digest)}:
                    none = False
                    yield Claim(End(writer, seq, digest), path, number)
    if none:
        raise AuditError(
            f"{path} has no checkpoint of an audit log. It must have the server's lines as they were told, as JSON and "
            f'not compressed: {{"event": "{_EVENT}", …}}'
        )
