"""What reading an audit log brings to light."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """Of a finding. The value is what --json says."""

    UNREADABLE = "unreadable"
    ALTERED = "altered"
    MISSING = "missing"
    OUT_OF_ORDER = "out-of-order"
    FOREIGN = "foreign"
    FORKED = "forked"
    SIGNATURE = "signature"
    UNSIGNED = "unsigned"
    AFTER_STOP = "after-stop"
    TRUNCATED = "truncated"
    UNENDED = "unended"
    ABSENT = "absent"
    UNKNOWN_CALL = "unknown-call"
    DIFFERS = "differs"
    # Not a sign that somebody changed anything:
    GAP = "gap"
    OPEN = "open"
    TORN = "torn"
    PARTIAL = "partial"
    TWICE = "given-twice"
    NO_ANSWER = "no-answer"
    NOT_IN_CLOUDTRAIL = "not-in-cloudtrail"


_NOTES = frozenset({Kind.GAP, Kind.OPEN, Kind.TORN, Kind.PARTIAL, Kind.TWICE, Kind.NO_ANSWER, Kind.NOT_IN_CLOUDTRAIL})


@dataclass(frozen=True, slots=True)
class Finding:
    """One of them, and where. ``line`` counts from 1; 0 is the file as a whole."""

    kind: Kind
    text: str
    writer: str
    file: Path | None = None
    line: int = 0

    @property
    def is_note(self) -> bool:
        """Whether the log may be whole all the same."""
        return self.kind in _NOTES

    def __str__(self) -> str:
        """For people: where, what."""
        place = f"{self.file}:{self.line}" if self.line else str(self.file or self.writer)
        text = f"{place}: {self.kind.value}: {self.text}"
        return "".join(letter if letter.isprintable() else "?" for letter in text)  # parts of it may be anybody's


def torn(writer: str, file: Path, line: int) -> Finding:
    """Of a file's last line that has no end."""
    return Finding(Kind.TORN, "the last line is not whole: its writer was killed, or it was cut", writer, file, line)
