"""Checkpoints that were kept elsewhere: in the server's own log, which is usually sent off the machine at once.

Whoever gets hold of the disk and the signing key can write another audit log, but not take these back.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from keystow_service.adapters.audit.claims import Claim
from keystow_service.adapters.audit.keys import AuditError
from keystow_service.adapters.audit.line import parse_end

_EVENT = "audit_checkpoint"


class Anchors:
    """Those in some logs, read once, and counted."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = paths
        self.count = 0  # so far

    def __iter__(self) -> Iterator[Claim]:
        """Raises OSError, AuditError."""
        for path in self._paths:
            for claim in _anchors_in(path):
                self.count += 1
                yield claim


def _anchors_in(path: Path) -> Iterator[Claim]:
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
            if isinstance(found, dict) and found.get("event") == _EVENT:
                with suppress(ValueError):
                    end = parse_end(found)
                    none = False
                    yield Claim(end, path, number)
    if none:
        raise AuditError(
            f"{path} has no checkpoint of an audit log. It must have the server's lines as they were told, as JSON and "
            f'not compressed: {{"event": "{_EVENT}", …}}'
        )
