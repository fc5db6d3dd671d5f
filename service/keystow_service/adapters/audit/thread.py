"""The thread that writes the audit log, so that the event loop never waits for a disk.

The promise: what is in the queue is written in order, many records with one sync; while the disk does not take them
they wait, the operator is alarmed, and the loop is told. It goes on by itself when the disk does. Should it ever fail
otherwise, no more is written: then that is what it tells until it is stopped.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from errno import errorcode
from queue import Empty, SimpleQueue
from typing import TypeAlias

import structlog

from keystow_service.adapters.audit.losses import Losses
from keystow_service.adapters.audit.writer import ChainWriter
from keystow_service.audit import AuditRecord

log = structlog.get_logger(__name__)

_RETRY_INTERVAL = 1.0  # seconds between two attempts to write
_ALARM_INTERVAL = 60.0  # seconds between two of the same alarm
_MAX_BATCH = 4_096

Taken: TypeAlias = tuple[datetime, AuditRecord]  # and when


@dataclass(frozen=True, slots=True)
class Listener:
    """Is told, in the thread, how writing goes."""

    written: Callable[[int], None]  # so many more records are on the disk
    unwritten: Callable[[], None]  # an attempt to write has failed
    failing: Callable[[bool], None]  # whether records may be admitted no more, or again
    ended: Callable[[], None]  # no more records are written


class WriterThread:
    """See the module. ``queue`` is what to write; None ends it."""

    def __init__(
        self,
        writer: ChainWriter,
        queue: "SimpleQueue[Taken | None]",
        losses: Losses,
        listener: Listener,
        *,
        pause: float,
    ) -> None:
        """``pause``: seconds that records are gathered before they are written."""
        self._writer = writer
        self._queue = queue
        self._losses = losses
        self._listener = listener
        self._pause = pause
        self._stopping = threading.Event()
        self._failing = False
        self._alarmed_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Write what is left, and end; False if the disk keeps it longer than ``timeout`` seconds. Blocks."""
        self._queue.put(None)
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        broken = ""
        try:
            self._write_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end unnoticed
            broken = type(error).__qualname__  # its text may hold secrets
        self._listener.ended()
        while broken:
            gap = self._losses.peek()
            log.error("audit_broken", exception=broken, lost=gap.lost if gap else 0, refused=gap.refused if gap else 0)
            if self._stopping.wait(_ALARM_INTERVAL):
                return

    def _write_all(self) -> None:
        ended = False
        self._commit(0)
        while not ended:
            records, ended = self._collect()
            self._writer.add(records)
            # One line for all of it, afterwards: a line each would fill the room that is kept for calls under way.
            if (ended or not self._failing) and (gap := self._losses.take()):
                self._writer.add_gap(gap)
            if ended:
                self._writer.stop()
            elif self._writer.checkpoint_due() == 0:
                self._writer.checkpoint()
            self._commit(len(records))
        if not self._writer.close():
            log.error("audit_records_not_written")

    def _collect(self) -> tuple[list[Taken], bool]:
        """What there is to write; whether it is the last."""
        found: list[Taken | None] = []
        with suppress(Empty):
            found.append(self._queue.get(timeout=self._patience()))
            self._stopping.wait(self._pause)
            while len(found) < _MAX_BATCH:
                found.append(self._queue.get_nowait())
        return [taken for taken in found if taken is not None], None in found

    def _patience(self) -> float | None:
        """For how many seconds there is nothing to do unless a record comes."""
        due = self._writer.checkpoint_due()
        if self._failing:
            return _RETRY_INTERVAL if due is None else min(due, _RETRY_INTERVAL)
        return 0.0 if self._losses.peek() else due

    def _commit(self, count: int) -> None:
        while not self._succeeds(self._writer.flush):
            self._listener.unwritten()
            if self._stopping.wait(_RETRY_INTERVAL):
                return
        self._listener.written(count)
        if self._succeeds(self._writer.reserve) and self._failing:
            self._failing = False
            self._listener.failing(False)
            log.warning("audit_works_again")

    def _succeeds(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except OSError as error:
            if not self._failing:
                self._failing = True
                self._listener.failing(True)
            now = time.monotonic()
            if now - self._alarmed_at >= _ALARM_INTERVAL:
                self._alarmed_at = now
                gap = self._losses.peek()
                log.error(  # noqa: TRY400 - the text may quote what was not meant for logs
                    "audit_failing",
                    problem=errorcode.get(error.errno or 0, "unknown"),
                    waiting=self._queue.qsize(),
                    lost=gap.lost if gap else 0,
                    refused=gap.refused if gap else 0,
                )
            return False
        return True
