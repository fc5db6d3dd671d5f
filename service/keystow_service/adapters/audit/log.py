"""The audit log on this machine's disk. An AuditLog.

The promise: recording waits for no disk. While the disk does not take records, they wait in memory; past its bound
they are counted, and the log tells how many. Where the operator chose to refuse, nothing is begun meanwhile, so that
what is under way is the bound, and no call ends well before its record is on the disk.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

import structlog

from keystow_service.adapters.audit.keys import AuditFiles, AuditKeys
from keystow_service.adapters.audit.losses import Losses
from keystow_service.adapters.audit.thread import Listener, Taken, WriterThread
from keystow_service.adapters.audit.writer import ChainWriter, WriterPolicy
from keystow_service.audit import AuditRecord
from keystow_service.errors import AuditUnavailableError
from keystow_service.ports import Clock

log = structlog.get_logger(__name__)

_GATHER = 0.1  # seconds; for so long a record may be in memory only, unless it must be on the disk
_STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """How the log is kept."""

    refuse: bool = False  # rather do nothing than what cannot be recorded
    capacity: int = 16_384  # records in memory
    patience: float = 10.0  # seconds; a disk that takes longer does not take records
    writer: WriterPolicy = field(default_factory=WriterPolicy)


@asynccontextmanager
async def open_audit_log(
    files: AuditFiles, clock: Clock, policy: AuditPolicy, about: Mapping[str, str]
) -> AsyncIterator["FileAuditLog"]:
    """Write to it while the block runs. ``about`` is what its first line says of the process. Raises AuditError."""
    keys = await asyncio.to_thread(AuditKeys.ensure, files)
    writer = await asyncio.to_thread(ChainWriter, files.directory, keys, clock, policy.writer, about)
    audit = FileAuditLog(writer, clock, policy)
    try:
        yield audit
    finally:
        await audit.aclose()


class FileAuditLog:
    """See the module. Used by one event loop."""

    def __init__(self, writer: ChainWriter, clock: Clock, policy: AuditPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._queue: SimpleQueue[Taken | None] = SimpleQueue()
        self._losses = Losses()
        self._failing = self._stalled = self._ended = False
        self._taken = self._written = 0  # records so far
        self._waiters: deque[tuple[int, asyncio.Future[bool]]] = deque()  # for so many to be written
        self._loop = asyncio.get_running_loop()
        listener = Listener(
            written=lambda count: self._tell(self._on_written, count),
            unwritten=lambda: self._tell(self._on_unwritten),
            failing=lambda failing: self._tell(self._on_failing, failing),
            ended=lambda: self._tell(self._on_ended),
        )
        pause = 0.0 if policy.refuse else _GATHER
        self._thread = WriterThread(writer, self._queue, self._losses, listener, pause=pause)

    @property
    def unwritten(self) -> int:
        """Records that wait in memory."""
        return self._queue.qsize()

    @property
    def lost(self) -> int:
        """Records that the log could not take, so far."""
        return self._losses.lost

    def admit(self) -> None:
        """See ports.AuditLog."""
        if self._policy.refuse and self._is_not_written():
            self._losses.count(self._clock.now(), refused=1)
            raise _unavailable()

    def record(self, record: AuditRecord) -> None:
        """See ports.AuditLog."""
        now = self._clock.now()
        full = self._queue.qsize() >= self._policy.capacity and not self._policy.refuse
        if self._ended or full:
            if self._losses.peek() is None:
                log.error("audit_records_lost", waiting=self._queue.qsize())
            self._losses.count(now, lost=1)
            return
        self._queue.put((now, record))
        self._taken += 1

    async def durable(self) -> None:
        """See ports.AuditLog."""
        if not self._policy.refuse:
            return
        if self._ended:
            raise _unavailable()
        if self._written >= self._taken:
            return
        written: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append((self._taken, written))
        try:
            async with asyncio.timeout(self._policy.patience):
                is_written = await written
        except TimeoutError:
            self._stall()
            is_written = False
        if not is_written:
            raise _unavailable()

    async def aclose(self) -> None:
        """Write what is left, if the disk takes it."""
        if not await asyncio.to_thread(self._thread.stop, _STOP_TIMEOUT):
            log.error("audit_not_closed", waiting=self._queue.qsize())
        self._take_no_more()

    def _is_not_written(self) -> bool:
        """Whether records had better not come."""
        return self._failing or self._stalled or self._ended or self._queue.qsize() > self._policy.capacity // 2

    def _stall(self) -> None:
        if not self._stalled:
            self._stalled = True
            log.error("audit_failing", problem="ETIMEDOUT", waiting=self._queue.qsize())

    def _on_written(self, count: int) -> None:
        self._written += count
        if self._stalled:
            self._stalled = False
            log.warning("audit_works_again")
        while self._waiters and self._waiters[0][0] <= self._written:
            _settle(self._waiters.popleft()[1], written=True)

    def _on_unwritten(self) -> None:
        while self._waiters:
            _settle(self._waiters.popleft()[1], written=False)

    def _on_failing(self, failing: bool) -> None:  # noqa: FBT001 - the one thing that is told
        self._failing = failing

    def _on_ended(self) -> None:
        if not self._ended and self._taken > self._written:
            self._losses.count(self._clock.now(), lost=self._taken - self._written)
        self._take_no_more()

    def _take_no_more(self) -> None:
        self._ended = True
        self._on_unwritten()

    def _tell(self, callback: Callable[..., None], *told: object) -> None:
        with suppress(RuntimeError):  # the loop is gone, and nobody waits
            self._loop.call_soon_threadsafe(callback, *told)


class NoAuditLog:
    """An AuditLog of an operator who wants none."""

    def admit(self) -> None:
        """See ports.AuditLog."""

    def record(self, record: AuditRecord) -> None:
        """See ports.AuditLog."""

    async def durable(self) -> None:
        """See ports.AuditLog."""


def _settle(waiter: "asyncio.Future[bool]", *, written: bool) -> None:
    if not waiter.done():
        waiter.set_result(written)


def _unavailable() -> AuditUnavailableError:
    return AuditUnavailableError(
        "The server cannot write its audit log, and does nothing that it cannot record. Try again later; its operator "
        "must see to the disk of audit_dir.",
        retry_after=5.0,
    )
