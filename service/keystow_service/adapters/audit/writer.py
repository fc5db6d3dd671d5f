"""A chain of lines, and the files that it goes to. One for each process that writes; used by one thread.

The promise: what was added is written in order, once, and without a hole, however often ``flush`` fails before it
succeeds; and no more than MAX_UNSIGNED lines go without a signature.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from keystow_service.adapters.audit.fields import describe
from keystow_service.adapters.audit.file import LogFile
from keystow_service.adapters.audit.keys import AuditKeys, fingerprint
from keystow_service.adapters.audit.line import (
    CHECKPOINT,
    FILE,
    FORMAT,
    GAP,
    MAX_UNSIGNED,
    NOTHING,
    START,
    STOP,
    End,
    digest,
    encode,
    file_name,
    new_writer,
    signed,
    timestamp,
)
from keystow_service.adapters.audit.losses import Gap
from keystow_service.adapters.audit.others import OtherWriters
from keystow_service.audit import AuditRecord
from keystow_service.model import MIB
from keystow_service.ports import Clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WriterPolicy:
    """Sizes in bytes, times in seconds."""

    file_size: int = 64 * MIB  # a file that has it is the last but one
    reserve: int = 0  # disk space kept ready for what is under way
    checkpoint_interval: float = 60.0  # a line waits no longer for a signature


class ChainWriter:
    """See the module. ``add``, ``checkpoint`` and the like touch no file of its own; ``flush`` and ``reserve`` do."""

    def __init__(
        self, directory: Path, keys: AuditKeys, clock: Clock, policy: WriterPolicy, about: Mapping[str, str]
    ) -> None:
        """``about`` is what the first line says of the process."""
        now = clock.now()
        self.writer = new_writer(now)
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._policy = policy
        self._others = OtherWriters(directory, self.writer)
        self._looked_at = float("-inf")  # boottime, as the next
        self._signed_at = float("-inf")
        self._end = self._signed = self._announced = End(self.writer, 0, NOTHING)  # last line, last checkpoint
        self._unsigned = 0
        self._lines: list[bytes] = []
        self._waiting: deque[bytes | None] = deque()  # what goes to one file; None is the next file
        self._day = now.date()
        self._size = 0  # of the newest file, with what waits for it
        self._number = 0
        self._file: LogFile | None = None
        with suppress(OSError):  # whatever is wrong there, writing will tell
            self._others.release()
        self._begin_file(START, about)
        self.checkpoint()

    def add(self, records: Sequence[tuple[datetime, AuditRecord]]) -> None:
        """With the times at which they were taken."""
        if not records:
            return
        if self._size >= self._policy.file_size or self._clock.now().date() != self._day:
            self.checkpoint()
            self._begin_file(FILE, {})
        for time, record in records:
            event, fields = describe(record, self._keys.hashes)
            self._add_line(time, event, fields)

    def add_gap(self, gap: Gap) -> None:
        """What could not be written stands there as a number."""
        since, until = timestamp(gap.since), timestamp(gap.until)
        fields = {"lost": gap.lost, "refused": gap.refused, "since": since, "until": until}
        self._add_line(self._clock.now(), GAP, fields)

    def checkpoint(self) -> None:
        """Sign all lines so far, and bear witness of the other writers, now and then."""
        fields: dict[str, object] = {"key": fingerprint(self._keys.signing.public)}
        now = self._clock.boottime()
        if now - self._looked_at >= self._policy.checkpoint_interval:
            self._looked_at = now
            with suppress(OSError):  # as above
                others = [_witness(each) for each in self._others.moved()]
                fields |= {"others": others} if others else {}
        self._append(signed(encode(self._end, self._clock.now(), CHECKPOINT, fields), self._keys.signing.sign))
        self._unsigned, self._signed, self._signed_at = 0, self._end, now

    def checkpoint_due(self) -> float | None:
        """In how many seconds; None while all is signed."""
        if not self._unsigned:
            return None
        return max(0.0, self._signed_at + self._policy.checkpoint_interval - self._clock.boottime())

    def stop(self) -> None:
        """The chain ends here, and says so."""
        self._add_line(self._clock.now(), STOP, {})
        self._looked_at = float("-inf")
        self.checkpoint()

    def flush(self) -> None:
        """Write what waits. Raises OSError; it still waits then."""
        self._hand_over()
        while self._waiting:
            lines = self._waiting[0]
            if lines is None:
                self._open_next()
            else:
                self._write(lines)
            self._waiting.popleft()
        if self._announced != self._signed:
            self._announced = self._signed
            # Outside the machine this is what the log can be held to, whoever gets hold of its disk and its keys.
            log.info("audit_checkpoint", writer=self.writer, seq=self._signed.seq, hash=self._signed.hash)

    def reserve(self) -> None:
        """See that there is disk space for what is under way. Raises OSError."""
        if self._file is not None:
            self._file.reserve()

    def close(self) -> bool:
        """The file, as it is. False if something still waits for it."""
        if self._file is not None:
            self._file.close()
            self._file = None
        return not self._waiting

    def _begin_file(self, event: str, fields: Mapping[str, str]) -> None:
        self._hand_over()
        self._waiting.append(None)
        self._size, self._day = 0, self._clock.now().date()
        self._looked_at = float("-inf")
        self._others.forget()  # each file bears witness by itself: those before it may be moved away
        self._add_line(self._clock.now(), event, {"format": FORMAT, **fields})

    def _add_line(self, time: datetime, event: str, fields: Mapping[str, object]) -> None:
        self._append(encode(self._end, time, event, fields))
        self._unsigned += 1
        if self._unsigned == MAX_UNSIGNED:
            self.checkpoint()

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        self._end = End(self.writer, self._end.seq + 1, digest(line))

    def _hand_over(self) -> None:
        if self._lines:
            self._waiting.append(b"\n".join((*self._lines, b"")))
            self._lines = []

    def _open_next(self) -> LogFile:
        if self._file is not None:
            self._file.give_back()
        try:
            following = LogFile(self._directory / file_name(self.writer, self._number + 1), self._policy.reserve)
        except FileExistsError:
            self._number += 1  # somebody else has the name: the next attempt takes another
            raise
        self._number += 1
        self.close()  # only now: at every moment there is a lock that says that the writer lives
        self._file = following
        return following

    def _write(self, lines: bytes) -> None:
        file = self._file or self._open_next()
        try:
            file.append(lines)
        except FileNotFoundError:
            log.error("audit_file_removed", file=file_name(self.writer, self._number))  # noqa: TRY400 - says it all
            self.close()
            self._open_next().append(lines)


def _witness(end: End) -> Mapping[str, object]:
    seen = {"writer": end.writer, "seq": end.seq, "hash": end.hash}
    return {**seen, "final": True} if end.final else seen
