"""What the command prints: results on stdout, everything else on stderr, for people or as JSON.

Names and messages come from elsewhere and may hold control characters. On a terminal they are shown escaped; a pipe
gets plain results as they are, and JSON is ASCII.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from keystow_client.cli.exits import ExitCode, exit_code
from keystow_client.errors import KeystowError
from keystow_client.export_models import ExportSummary
from keystow_client.models import (
    DataCenter,
    KeyCheck,
    KeyReport,
    ObjectInfo,
    ServerInfo,
    Tenant,
)

Record = ObjectInfo | Tenant | KeyCheck | KeyReport | DataCenter | ServerInfo | ExportSummary


_SECONDS = frozenset({"revocation_bound"})  # whose names do not tell their unit


class Output:
    """Where results, notes and failures go."""

    def __init__(self, *, as_json: bool) -> None:
        """One line of JSON a result, or text."""
        self.as_json = as_json
        self.bars_console: Console | None = None

    def line(self, text: str, data: Mapping[str, Any]) -> None:
        """A result: its text, or its data as JSON."""
        if self.as_json:
            _write(sys.stdout, json.dumps(data))
        elif not sys.stdout.isatty():
            _write(sys.stdout, text)
        elif self.bars_console is not None:
            self.bars_console.print(Text(printable(text)), soft_wrap=True)  # above the bars, on the same terminal
        else:
            _write(sys.stdout, printable(text))

    def block(self, text: str, data: Mapping[str, Any]) -> None:
        """A result of several lines, printable already."""
        _write(sys.stdout, json.dumps(data) if self.as_json else text)

    def document(self, text: str, data: Mapping[str, Any]) -> None:
        """A result that is a text of its own: as it is for a pipe, printable on a terminal."""
        lines = text.splitlines()
        self.block("\n".join(map(printable, lines) if sys.stdout.isatty() else lines), data)

    def record(self, data: Mapping[str, Any]) -> None:
        """A result that is for programs only: people know it from the exit code."""
        if self.as_json:
            _write(sys.stdout, json.dumps(data))

    def note(self, text: str) -> None:
        """Something to know that is no failure. Not for JSON."""
        if not self.as_json:
            self._complain(f"keystow: {text}")

    def failure(self, subject: str, error: Exception) -> ExitCode:
        """Tell what went wrong with what; gives the exit code."""
        code = exit_code(error)
        notes = getattr(error, "__notes__", [])
        if self.as_json:
            told = {"notes": notes} if notes else {}
            self._complain_raw(json.dumps({"error": {"subject": subject, **describe_failure(error), **told}}))
            return code
        self._complain(f"keystow: {subject}: {explain(error)}" if subject else f"keystow: {explain(error)}")
        if isinstance(error, KeystowError):
            for violation in error.violations:
                self._complain(f"  {violation.subject}: {violation.description}")
        for note in notes:
            self._complain(f"  {note}")
        return code

    def _complain(self, text: str) -> None:
        self._complain_raw(printable(text))

    def _complain_raw(self, text: str) -> None:
        if self.bars_console is not None:
            self.bars_console.print(Text(text), soft_wrap=True)
        else:
            _write(sys.stderr, text)


def _write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")


def printable(text: str) -> str:
    """Text that cannot act on a terminal: control, format and other invisible characters and backslashes escaped."""
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def explain(error: Exception) -> str:
    """One line for people."""
    match error:
        case KeystowError(reason="OBJECT_EXISTS"):
            return f"{error}; --overwrite replaces it"
        case KeystowError():
            tried = f" (tried {error.attempts} times)" if error.attempts > 1 else ""
            return f"{error}{tried}"
        case FileExistsError():
            return f"{error.filename} is there already; --force replaces it"
        case UnicodeEncodeError():
            return f"{error.object!r} is not valid UTF-8, as tenants, keys and metadata must be"
        case OSError() if error.strerror:
            return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def describe_failure(error: Exception) -> dict[str, Any]:
    """The same for programs."""
    if not isinstance(error, KeystowError):
        return {"code": None, "reason": type(error).__name__, "recovery": "none", "message": explain(error)}
    return {
        "code": error.code.name if error.code else None,
        "reason": error.reason,
        "recovery": error.recovery.value,
        "message": error.message,
        "metadata": error.metadata,
        "violations": [asdict(violation) for violation in error.violations],
        "attempts": error.attempts,
    }


def describe(record: Record) -> dict[str, Any]:
    """A record as JSON has it: names as in the contract, times as RFC 3339, checksums in hexadecimal."""
    described: dict[str, Any] = _plain(asdict(record))
    if isinstance(record, ObjectInfo | ExportSummary):
        described["crc32c"] = None if record.crc32c is None else f"{record.crc32c:08x}"
    return described


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case datetime():
            return timestamp(value)
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.hex()
    return value


def fields(described: Mapping[str, Any]) -> str:
    """A record for people: one field a line, aligned and printable; what is unknown is left out."""
    return "\n".join(table([(printable(name), printable(value)) for name, value in _rows("", described)]))


def _rows(prefix: str, described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in described.items():
        match value:
            case None | "" | []:
                continue
            case dict():
                yield from _rows(f"{prefix}{name}.", value)
            case list():
                yield f"{prefix}{name}", ", ".join(map(str, value))
            case float() if name in _SECONDS:
                yield f"{prefix}{name}", f"{value:g} s"
            case _:
                yield f"{prefix}{name}", str(value)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with aligned columns."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def human_size(size: int) -> str:
    """Bytes in the unit that fits."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:  # noqa: PLR2004 - what makes a binary unit
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def timestamp(time: datetime | None) -> str:
    """RFC 3339, UTC, to the second."""
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
