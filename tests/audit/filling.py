"""A process whose disk, or whose file, has no room for its audit log for a while: `python filling.py DIR MODE HOW`.

It prints what came of it as JSON: what the log says, what was told, and what the verifier finds.
"""

import asyncio
import json
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from audit.writing import entries_of, files_of, open_log, rpc
from keystow_service.adapters.audit.keys import AuditFiles, load_signing_key
from keystow_service.adapters.audit.log import AuditPolicy, FileAuditLog
from keystow_service.adapters.audit.verify import verify
from keystow_service.adapters.audit.writer import WriterPolicy
from keystow_service.errors import AuditUnavailableError
from rpc.wire import until

_CAPACITY = 64
_MANY = 400
_REFUSED = 200


class Disk:
    """Full and with room again, of one of two kinds."""

    def __init__(self, directory: Path, how: str) -> None:
        self._directory = directory
        self._how = how

    def fill(self) -> None:
        """No more bytes for anybody; or for files that are longer than the log is now."""
        if self._how == "limit":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            size = max(file.stat().st_size for file in files_of(self._directory))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, resource.RLIM_INFINITY))
            return
        with (self._directory / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass

    def clear(self) -> None:
        """Room again."""
        if self._how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            (self._directory / "filler").unlink()


async def alarm(log: FileAuditLog, disk: Disk, failing: Callable[[], bool]) -> int:
    """Goes on recording. How many were recorded."""
    disk.fill()
    count = 0
    while not failing():
        log.admit()
        log.record(rpc(count))
        await log.durable()
        await asyncio.sleep(0.001)
        count += 1
    for _ in range(_MANY):
        log.admit()
        log.record(rpc(count))
        count += 1
    disk.clear()
    return count


async def refuse(log: FileAuditLog, disk: Disk, failing: Callable[[], bool]) -> int:
    """Records what it is let to. How many that were."""
    disk.fill()
    count = unsure = refused = 0
    while not refused:
        try:
            log.admit()
        except AuditUnavailableError:
            refused += 1
            continue
        log.record(rpc(count))
        count += 1
        try:
            await log.durable()
        except AuditUnavailableError:
            unsure += 1
        else:
            assert len(entries_of(Path(sys.argv[1]), "rpc")) == 1 + count  # it is in the file before the answer leaves
    assert failing()
    while refused < _REFUSED:
        with suppress(AuditUnavailableError):
            log.admit()
        refused += 1
        await asyncio.sleep(0.001)
    disk.clear()
    while True:
        try:
            log.admit()
        except AuditUnavailableError:
            refused += 1
            await asyncio.sleep(0.01)
        else:
            break
    log.record(rpc(count))
    await log.durable()
    return count + 1


async def main(directory: Path, mode: str, how: str) -> dict[str, Any]:
    """See the module."""
    writer = WriterPolicy(reserve=64 * 1024 if mode == "refuse" else 0)
    policy = AuditPolicy(refuse=mode == "refuse", capacity=_CAPACITY, writer=writer)
    with capture_logs() as told:

        def failing() -> bool:
            return any(entry["event"] == "audit_failing" for entry in told)

        async with open_log(directory, policy=policy) as log:
            log.record(rpc(-1))
            await until(lambda: files_of(directory) != [] and b'"rpc"' in files_of(directory)[0].read_bytes())
            count = await (refuse if mode == "refuse" else alarm)(log, Disk(directory, how), failing)
    key = load_signing_key(AuditFiles(directory)).public
    return {
        "recorded": count,
        "written": [entry["request_id"] for entry in entries_of(directory, "rpc")][1:],
        "gaps": entries_of(directory, "gap"),
        "told": [entry["event"] for entry in told if entry["event"] != "audit_checkpoint"],
        "problems": [entry["problem"] for entry in told if entry["event"] == "audit_failing"],
        "found": [finding.kind.value for finding in verify(files_of(directory), [key])],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))))  # noqa: T201 - to the test
