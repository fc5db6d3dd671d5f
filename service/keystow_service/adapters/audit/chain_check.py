"""One writer's chain, line by line: whether each line is the one that followed the line before."""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keystow_service.adapters.audit.claims import Claim, Claims
from keystow_service.adapters.audit.finding import Finding, Kind, torn
from keystow_service.adapters.audit.line import (
    CHECKPOINT,
    GAP,
    MAX_UNSIGNED,
    NOTHING,
    START,
    STOP,
    Entry,
    digest,
    parse,
    signature_holds,
)
from keystow_service.adapters.audit.source import Line


class Life(Enum):
    """What is known of a writer."""

    RUNS = auto()
    ENDED = auto()
    UNKNOWN = auto()


class ChainCheck:
    """Goes through the lines of one writer, in the order of its files."""

    def __init__(
        self, writer: str, keys: Sequence[Ed25519PublicKey], claims: Claims, *, partial: bool, life: Life
    ) -> None:
        """``claims`` are others' about this chain. ``partial``: its beginning need not be there."""
        self._writer = writer
        self._keys = keys
        self._claims = claims
        self._partial = partial
        self._life = life
        self._begun = False
        self._seq, self._hash = 0, NOTHING  # of the last line
        self._unsigned = 0
        self._unsigned_since = ""
        self._stopped = self._closed = False
        self._trouble: Kind | None = None  # what the last line was; a run of the same is told once
        self.file = Path()  # that is being read; of an empty one no line tells

    @property
    def reached(self) -> int:
        """The number of the last line so far."""
        return self._seq

    def branch(self, file: Path, first_seq: int) -> Iterator[Finding]:
        """A file that does not follow the last one, but stands beside lines that were there already."""
        yield self._finding(
            Kind.FORKED, f"begins with line {first_seq} of the chain, which stands in another file, too", file, 1
        )
        self._begun = False
        self._seq, self._hash = first_seq - 1, NOTHING

    def line(self, line: Line) -> Iterator[Finding]:
        """The next one."""
        trouble, self._trouble = self._trouble, None
        for finding in self._judge(line):
            if finding.kind is not trouble or finding.kind not in _IN_RUNS:
                yield finding
            if finding.kind in _IN_RUNS:
                self._trouble = finding.kind

    def end(self, last: Line | None) -> Iterator[Finding]:
        """No more lines. ``last`` is the last one of all, if it is not whole."""
        if last is not None:
            yield torn(self._writer, last.file, last.number)
        for claim in self._claims.of(self._seq + 1):
            text = f"ends with line {self._seq}, but line {claim.end.seq} {_was_seen(claim)}"
            yield self._finding(Kind.TRUNCATED, text, self.file)
        if not self._closed:
            yield self._open()

    def _open(self) -> Finding:
        """The chain has no end. Whether that is wrong."""
        unsigned = (
            f", and no signature covers its last {self._unsigned} lines, from {self._unsigned_since} on"
            if self._unsigned
            else ""
        )
        text = f"has no end after line {self._seq}{unsigned}"
        if self._seq == 0:
            text = "holds no line: its writer was killed before the first, or had no room for it, or they were cut off"
            return self._finding(Kind.OPEN, text, self.file)
        if self._life is Life.RUNS:
            return self._finding(Kind.OPEN, f"{text}: its writer runs", self.file)
        # Who saw it while its writer ran proves nothing: the writer may have gone on.
        seen = next((claim for claim in self._claims.of(self._seq, self._seq) if claim.end.final), None)
        if seen is not None:
            text = (
                f"{text}: its writer was killed, for line {self._seq} {_was_seen(seen)}, when it did not run any more"
            )
            return self._finding(Kind.OPEN, text, self.file)
        if self._life is Life.ENDED:
            text = f"{text}. Its writer does not run, and nobody saw it end here: it was killed, or the end was cut off"
            return self._finding(Kind.UNENDED, text, self.file)
        return self._finding(Kind.OPEN, f"{text}. Its writer runs, was killed, or the end was cut off", self.file)

    def _judge(self, line: Line) -> Iterator[Finding]:
        try:
            entry = parse(line.text)
        except ValueError:
            yield self._finding(Kind.UNREADABLE, "is no line of an audit log", line.file, line.number)
            return
        if not line.whole:
            yield self._finding(Kind.ALTERED, "is cut off at its end, and other lines follow", line.file, line.number)
        if entry.writer != self._writer:
            yield self._finding(Kind.FOREIGN, f"is a line of the writer {entry.writer}", line.file, line.number)
            return
        if self._begun and entry.seq <= self._seq:
            text = f"is line {entry.seq} of the chain, but follows line {self._seq}"
            yield self._finding(Kind.OUT_OF_ORDER, text, line.file, line.number)
            return
        yield from self._follows(entry, line)
        self._begun = True
        self._seq, self._hash = entry.seq, digest(line.text)
        for claim in self._claims.of(entry.seq, entry.seq):
            if claim.end.hash != self._hash:
                text = f"is another line {entry.seq} than the one that {_was_seen(claim)}"
                yield self._finding(Kind.FORKED, text, line.file, line.number)
        yield from self._means(entry, line)

    def _follows(self, entry: Entry, line: Line) -> Iterator[Finding]:
        """Whether it is the next, and names the one before."""
        expected = self._seq + 1
        if entry.seq > expected and self._partial and not self._begun:
            yield self._finding(Kind.PARTIAL, f"begins with line {entry.seq}", line.file, line.number)
        elif entry.seq > expected:
            which = f"line {expected} is" if entry.seq == expected + 1 else f"lines {expected} to {entry.seq - 1} are"
            yield self._finding(Kind.MISSING, f"{which} missing before line {entry.seq}", line.file, line.number)
        elif entry.previous != self._hash and (self._begun or expected == 1):
            text = f"does not continue what stands before it: that was altered, or line {entry.seq} was"
            yield self._finding(Kind.ALTERED, text, line.file, line.number)

    def _means(self, entry: Entry, line: Line) -> Iterator[Finding]:
        """What the line says of the chain."""
        if self._closed:
            yield self._finding(Kind.AFTER_STOP, "follows the end of the chain", line.file, line.number)
        self._closed = False
        if entry.event == CHECKPOINT:
            if signature_holds(line.text, self._keys):
                self._unsigned = 0
                self._closed = self._stopped
            else:
                text = "the signature is not by this key, or what was signed was altered"
                yield self._finding(Kind.SIGNATURE, text, line.file, line.number)
            return
        self._stopped = entry.event == STOP
        if entry.event == GAP:
            yield self._finding(Kind.GAP, _gap(entry), line.file, line.number)
        if not self._unsigned:
            self._unsigned_since = str(entry.fields.get("time"))
        self._unsigned += 1
        if (entry.seq == _FIRST) is not (entry.event == START):
            yield self._finding(Kind.ALTERED, "stands where a writer writes no such line", line.file, line.number)
        if self._unsigned > MAX_UNSIGNED or entry.seq == _FIRST_CHECKPOINT:
            self._unsigned = 0
            text = "should be a checkpoint: those that stood here were taken out, or are not valid"
            yield self._finding(Kind.UNSIGNED, text, line.file, line.number)

    def _finding(self, kind: Kind, text: str, file: Path, line: int = 0) -> Finding:
        return Finding(kind, text, self._writer, file, line)


_FIRST, _FIRST_CHECKPOINT = 1, 2  # lines: the start, and what signs it
_IN_RUNS = frozenset({Kind.UNREADABLE, Kind.FOREIGN, Kind.OUT_OF_ORDER, Kind.AFTER_STOP})


def _was_seen(claim: Claim) -> str:
    return f"was seen by {claim.file}:{claim.line}"


def _gap(entry: Entry) -> str:
    fields = entry.fields
    return (
        f"the server could not write {fields.get('lost')} records, and refused {fields.get('refused')} calls, between "
        f"{fields.get('since')} and {fields.get('until')}"
    )
