"""The audit log as it is written: lines, chain, files, keys, and what a start finds of the writers before."""

import asyncio
import fcntl
import hashlib
import hmac
import os
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from audit.writing import (
    ARN,
    TENANT,
    check_chain,
    entries_in,
    entries_of,
    files_of,
    kms,
    lines_of,
    open_log,
    rpc,
    small_files,
    write,
)
from clock import FakeClock
from keystow_service.adapters.audit.finding import Finding, Kind
from keystow_service.adapters.audit.keys import AuditError, AuditFiles, load_signing_key
from keystow_service.adapters.audit.log import AuditPolicy
from keystow_service.adapters.audit.verify import verify
from keystow_service.adapters.audit.writer import WriterPolicy
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.posix_files import reserve_space
from keystow_service.errors import AuditUnavailableError
from rpc.wire import until

FAIL_CLOSED = AuditPolicy(refuse=True)


def found_in(directory: Path, files: Iterable[Path] | None = None) -> list[Finding]:
    """By the verifier, with the log's own key."""
    key = load_signing_key(AuditFiles(directory)).public
    return list(verify(files_of(directory) if files is None else files, [key]))


async def test_lines(tmp_path: Path) -> None:
    """A record is one line of JSON with its fields; between start and stop, with checkpoints after both."""
    await write(tmp_path, [rpc(1, object_key="a/secret name"), kms(2)])
    start, first, of_rpc, of_kms, stop, last = entries_of(tmp_path)
    chained = {"writer", "seq", "prev", "time", "event"}
    events = [entry["event"] for entry in (start, first, stop, last)]
    assert events == ["start", "checkpoint", "stop", "checkpoint"]
    assert {name: start[name] for name in start.keys() - chained} == {"format": 1, "version": "test"}
    whose = {"caller": "connector", "operation": "Put", "tenant": TENANT}
    tenants_key = hmac.digest((tmp_path / "object-hash.key").read_bytes(), TENANT.encode(), "sha256")
    assert {name: of_rpc[name] for name in of_rpc.keys() - chained} == {
        **whose,
        "request_id": "request-1",
        "peer": "ipv4:127.0.0.1:1",
        "object": hmac.digest(tenants_key, b"a/secret name", "sha256").hex(),
        "code": "OK",
        "reason": "",
        "bytes_in": 100,
        "bytes_out": 0,
        "last_plaintext": "",
        "seconds": 0.25,
        "key_uses": [{"use": "seal", "kms_key": ARN.text, "count": 1, "cached": 1, "kms_request_ids": ["kms-request"]}],
    }
    assert {name: of_kms[name] for name in of_kms.keys() - chained} == {
        **whose,
        "request_id": "request-2",
        "kms_operation": "GenerateDataKey",
        "kms_key": ARN.text,
        "context": {"keystow:tenant": TENANT},
        "kms_request_id": "kms-request-2",
        "reason": "",
        "seconds": 0.125,
    }
    assert (of_rpc["event"], of_kms["event"]) == ("rpc", "kms")
    assert b"secret name" not in b"".join(lines_of(*files_of(tmp_path)))


async def test_files_of_one_chain(tmp_path: Path) -> None:
    """A full file ends with a checkpoint, and the next goes on with the chain."""
    await write(tmp_path, [rpc(number) for number in range(20)], small_files(3000))
    files = files_of(tmp_path)
    assert len(files) > 3
    assert all(3000 <= file.stat().st_size < 5000 for file in files[:-1])
    assert all(b'"event":"checkpoint"' in lines_of(file)[-1] for file in files)
    check_chain(lines_of(*files))
    assert [entry["request_id"] for entry in entries_of(tmp_path, "rpc")] == [f"request-{n}" for n in range(20)]
    assert found_in(tmp_path) == []


async def test_a_file_a_day(tmp_path: Path) -> None:
    """At midnight, UTC, a file ends."""
    clock = FakeClock()
    async with open_log(tmp_path, clock, FAIL_CLOSED) as log:
        for number in range(6):
            log.record(rpc(number))
            await log.durable()
            clock.advance(9 * 3600)
    days = [
        [entry["time"][:10] for entry in entries_in(file) if entry["event"] == "rpc"] for file in files_of(tmp_path)
    ]
    assert days == [["2026-01-01"] * 3, ["2026-01-02"] * 3]
    assert found_in(tmp_path) == []


async def test_no_line_is_long_without_a_signature(tmp_path: Path) -> None:
    """After 1,000 lines there is a checkpoint, however fast they come; or at once, if that is asked for."""
    async with open_log(tmp_path / "fast") as log:
        for number in range(2500):
            log.record(rpc(number))
    events = [entry["event"] for entry in entries_of(tmp_path / "fast")]
    assert [len(run.split("/")) - 2 for run in "/".join(events).split("checkpoint")[1:3]] == [1000, 1000]
    patient = AuditPolicy(refuse=True, writer=WriterPolicy(checkpoint_interval=0.0))
    await write(tmp_path / "slow", [rpc(), rpc()], patient)
    events = [entry["event"] for entry in entries_of(tmp_path / "slow")]
    assert events[2:6] == ["rpc", "checkpoint", "rpc", "checkpoint"]
    assert found_in(tmp_path / "fast") == found_in(tmp_path / "slow") == []


async def test_private(tmp_path: Path) -> None:
    """Log, keys and directory are their owner's alone, whatever the umask."""
    before = os.umask(0)
    try:
        await write(tmp_path / "audit", [rpc()])
    finally:
        os.umask(before)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "audit").iterdir()} == {0o600}


async def test_after_a_kill(tmp_path: Path) -> None:
    """A writer that was killed leaves half a line at most; the next one says where it stood. That is no forgery."""
    await write(tmp_path, [rpc(number) for number in range(5)], FAIL_CLOSED)
    [killed] = files_of(tmp_path)
    *kept, _ = lines_of(killed)[:5]
    killed.write_bytes(b"\n".join((*kept, b'{"writer":"2026')))
    await write(tmp_path, [rpc()], FAIL_CLOSED)
    [seen] = [entry["others"] for entry in entries_in(files_of(tmp_path)[-1]) if "others" in entry]
    assert [(each["seq"], each["hash"]) for each in seen] == [(4, hashlib.sha256(kept[-1]).hexdigest())]
    assert {finding.kind for finding in found_in(tmp_path)} == {Kind.TORN, Kind.OPEN}
    killed.write_bytes(b"\n".join((*kept[:-1], b"")))
    assert Kind.TRUNCATED in {finding.kind for finding in found_in(tmp_path)}


async def test_the_space_of_a_killed_writer(tmp_path: Path) -> None:
    """What it had reserved is given back by the next start, also while somebody asks whether it runs."""
    await write(tmp_path, [rpc()])
    [killed] = files_of(tmp_path)
    with killed.open("r+b") as file:
        reserve_space(file.fileno(), killed.stat().st_size, 1 << 20)
        assert killed.stat().st_blocks * 512 >= 1 << 20
        fcntl.flock(file, fcntl.LOCK_SH)  # as is_written does, for an instant
        await write(tmp_path, [rpc()])
        assert killed.stat().st_blocks * 512 < 1 << 20


async def test_two_writers(tmp_path: Path) -> None:
    """Two servers may share a directory; each bears witness of the other, and one that vanishes is missed."""
    async with open_log(tmp_path, policy=FAIL_CLOSED) as one, open_log(tmp_path, policy=FAIL_CLOSED) as other:
        for number in range(3):
            for log in (one, other):
                log.record(rpc(number))
                await log.durable()
    first, second = files_of(tmp_path)
    assert found_in(tmp_path) == []
    for alone in (first, second):
        assert {finding.kind for finding in found_in(tmp_path, [alone])} == {Kind.ABSENT}


async def test_a_removed_file(tmp_path: Path) -> None:
    """If somebody removes the file under way, the operator is told, the log goes on in another, and the loss shows."""
    with capture_logs() as told:
        async with open_log(tmp_path, policy=FAIL_CLOSED) as log:
            log.record(rpc(1))
            await log.durable()
            [file] = files_of(tmp_path)
            file.unlink()
            log.record(rpc(2))
            await log.durable()
    assert [entry["file"] for entry in told if entry["event"] == "audit_file_removed"] == [file.name]
    assert [entry["request_id"] for entry in entries_of(tmp_path, "rpc")] == ["request-2"]
    assert [finding.kind for finding in found_in(tmp_path)] == [Kind.MISSING]


async def test_a_file_that_was_cut(tmp_path: Path) -> None:
    """If somebody empties the file under way, as logrotate's copytruncate does, no record after that is lost."""
    async with open_log(tmp_path, policy=FAIL_CLOSED) as log:
        log.record(rpc(1))
        await log.durable()
        [file] = files_of(tmp_path)
        copy = file.read_bytes()
        file.write_bytes(b"")
        log.record(rpc(2))
        await log.durable()
    assert (file.read_bytes(), len(files_of(tmp_path))) == (b"", 2)
    file.write_bytes(copy)
    assert [entry["request_id"] for entry in entries_of(tmp_path, "rpc")] == ["request-1", "request-2"]
    assert found_in(tmp_path) == []


async def test_what_stands_among_the_files(tmp_path: Path) -> None:
    """Whatever somebody puts there, a writer goes on, takes another name if it must, and witnesses the others."""
    await write(tmp_path, [rpc()])
    [witnessed] = files_of(tmp_path)
    strange = [tmp_path / f"{year}0101T000000000Z-00000000.000001.jsonl" for year in range(2000, 2004)]
    strange[0].write_bytes(b"[" * 60_000 + b"\n")
    os.mkfifo(strange[1])
    strange[2].mkdir()
    strange[3].symlink_to("nowhere")
    async with open_log(tmp_path, policy=small_files(1)) as log:
        log.record(rpc(1))
        await log.durable()
        newest = files_of(tmp_path)[-1]
        number = int(newest.name.split(".")[1])
        (tmp_path / newest.name.replace(f"{number:06}", f"{number + 1:06}")).touch()
        log.record(rpc(2))
        with suppress(AuditUnavailableError):  # what is in the way is told as any failure
            await log.durable()
    for path in strange:
        path.rmdir() if path.is_dir() else path.unlink()
    assert [entry["request_id"] for entry in entries_of(tmp_path, "rpc")] == ["request-0", "request-1", "request-2"]
    others = [entry["others"] for entry in entries_of(tmp_path) if "others" in entry]
    assert others[0][0]["writer"] == witnessed.name.partition(".")[0]
    assert found_in(tmp_path) == []


class StuckClock(SystemClock):
    """Keeps the thread that writes waiting, as a disk can; the loop does not ask for this time."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def boottime(self) -> float:
        self.free.wait()
        return super().boottime()


async def test_a_disk_that_does_not_answer(tmp_path: Path) -> None:
    """Is one that does not take records: nobody waits for it without end, and it goes on when it answers."""
    clock = StuckClock()
    with capture_logs() as told:
        async with open_log(tmp_path, clock, replace(FAIL_CLOSED, patience=0.05)) as log:
            clock.free.clear()
            for number in range(3):  # one may still be written
                log.record(rpc(number))
                with suppress(AuditUnavailableError):
                    await log.durable()
            with pytest.raises(AuditUnavailableError):
                log.admit()
            clock.free.set()
            await until(lambda: log.unwritten == 0 and "audit_works_again" in [entry["event"] for entry in told])
            log.admit()
    assert [entry["request_id"] for entry in entries_of(tmp_path, "rpc")] == [f"request-{each}" for each in range(3)]
    assert [entry["refused"] for entry in entries_of(tmp_path, "gap")] == [1]


class BrokenClock(SystemClock):
    """Fails as nothing should."""

    broken = False

    def boottime(self) -> float:
        if self.broken:
            raise ZeroDivisionError
        return super().boottime()


@pytest.mark.parametrize("policy", [AuditPolicy(), FAIL_CLOSED])
async def test_a_thread_that_ends(tmp_path: Path, policy: AuditPolicy) -> None:
    """A defect that ends the writing is told; whoever would rather refuse does, and what is lost is counted."""
    clock = BrokenClock()
    with capture_logs() as told:
        async with open_log(tmp_path, clock, policy) as log:
            clock.broken = True
            log.record(rpc(1))
            with suppress(AuditUnavailableError):
                await log.durable()
            await until(lambda: any(entry["event"] == "audit_broken" for entry in told))
            while not log.lost:
                log.record(rpc(2))
                await asyncio.sleep(0)
            if policy.refuse:
                with pytest.raises(AuditUnavailableError):
                    log.admit()
                with pytest.raises(AuditUnavailableError):
                    await log.durable()
    [broken] = [entry for entry in told if entry["event"] == "audit_broken"]
    assert broken["exception"] == "ZeroDivisionError"


async def test_the_alarm_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written any more it is told again and again, with what is lost: also what had been taken."""
    monkeypatch.setattr("keystow_service.adapters.audit.thread._ALARM_INTERVAL", 0.01)
    clock = BrokenClock()
    with capture_logs() as told:

        def alarms() -> list[int]:
            return [entry["lost"] for entry in told if entry["event"] == "audit_broken"]

        async with open_log(tmp_path, clock) as log:
            clock.broken = True
            log.record(rpc(1))
            await until(lambda: len(alarms()) > 1 and alarms()[-1] == 1)
            log.record(rpc(2))
            await until(lambda: alarms()[-1] == 2)
            assert log.lost == 2
    assert entries_of(tmp_path, "rpc") == []


async def test_more_than_memory_takes(tmp_path: Path) -> None:
    """What comes faster than it can be written, beyond the bound, is counted: no record is missing silently."""
    async with open_log(tmp_path, policy=AuditPolicy(capacity=8)) as log:
        for number in range(1000):
            log.record(rpc(number))
    written = [entry["request_id"] for entry in entries_of(tmp_path, "rpc")]
    assert written[:8] == [f"request-{number}" for number in range(8)]
    assert len(written) + sum(entry["lost"] for entry in entries_of(tmp_path, "gap")) == 1000
    assert {finding.kind for finding in found_in(tmp_path)} == {Kind.GAP}


async def test_checkpoints_are_told(tmp_path: Path) -> None:
    """The server's log has the newest checkpoint of every write: what a copy elsewhere can hold the audit log to."""
    with capture_logs() as told:
        await write(tmp_path, [rpc()], FAIL_CLOSED)
    anchors = [(entry["seq"], entry["hash"]) for entry in told if entry["event"] == "audit_checkpoint"]
    lines = lines_of(*files_of(tmp_path))
    ends = [number for number, line in enumerate(lines, start=1) if b'"event":"checkpoint"' in line]
    assert anchors == [(number, hashlib.sha256(lines[number - 1]).hexdigest()) for number in ends]


# --- Keys -------------------------------------------------------------------------------------------------------------


def private_file(path: Path, content: bytes) -> Path:
    """Only its owner's."""
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


async def test_keys_of_the_operators(tmp_path: Path) -> None:
    """Keys that the settings name are used, and none is made beside the log."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keys = private_file(tmp_path / "signing.pem", pem), private_file(tmp_path / "hash", bytes(range(32)))
    async with open_log(AuditFiles(tmp_path / "audit", *keys)) as log:
        log.record(rpc(object_key="name"))
    tenants_key = hmac.digest(bytes(range(32)), TENANT.encode(), "sha256")
    [entry] = entries_of(tmp_path / "audit", "rpc")
    assert entry["object"] == hmac.digest(tenants_key, b"name", "sha256").hex()
    assert list(verify(files_of(tmp_path / "audit"), [private.public_key()])) == []
    assert not list((tmp_path / "audit").glob("*.key"))


@pytest.mark.parametrize("which", ["signing_key", "hash_key"])
@pytest.mark.parametrize("case", ["missing", "nonsense", "open to others"])
async def test_bad_keys(tmp_path: Path, which: str, case: str) -> None:
    """A key that cannot be used stops the start, with its name and what to do."""
    path = tmp_path / "key"
    if case != "missing":
        private_file(path, b"nonsense")
    if case == "open to others":
        path.chmod(0o640)
    with pytest.raises(AuditError, match=str(path)):
        async with open_log(replace(AuditFiles(tmp_path / "audit"), **{which: path})):
            pass


async def test_keys_stay(tmp_path: Path) -> None:
    """A second start uses the keys of the first; two at once make one."""
    await asyncio.gather(*(write(tmp_path, [rpc()]) for _ in range(4)))
    await write(tmp_path, [rpc()])
    assert Counter(entry["object"] for entry in entries_of(tmp_path, "rpc")).most_common(1)[0][1] == 5
    assert found_in(tmp_path) == []
