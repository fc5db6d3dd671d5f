"""``keystow-service audit verify | public-key | object-hash | tenant-hash-key``."""

import asyncio
import hmac
import json
import shutil
from pathlib import Path

import pytest

from audit.command import audit
from audit.writing import (
    TENANT,
    entries_in,
    entries_of,
    files_of,
    lines_of,
    open_log,
    rpc,
    small_files,
    write_now,
)
from keystow_service.adapters.audit.line import digest
from rpc.wire import until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a server has run that keeps its data in ./data. Its log has three files."""
    write_now(tmp_path / "data" / "audit", 9, small_files(2000))
    assert len(files_of(tmp_path / "data" / "audit")) == 3
    return tmp_path


def test_verify(folder: Path) -> None:
    """Where the server is, no argument is needed; elsewhere files and the public key are."""
    assert audit(folder, "verify") == audit(folder, "verify", *files_of(folder / "data" / "audit"))
    assert (said := audit(folder, "verify")).code == 0
    assert said.output == "3 files: nothing wrong\n"
    (folder / "key.pem").write_text(audit(folder, "public-key").output)
    shutil.copytree(folder / "data" / "audit", folder / "copy")
    shutil.rmtree(folder / "data")
    assert audit(folder, "verify", "--public-key", "key.pem", "copy").code == 0
    without = audit(folder, "verify", "copy")
    assert (without.code, without.output) == (2, "")
    assert "--public-key" in without.errors


def test_what_is_found(folder: Path) -> None:
    """Each finding with its file and line, one a line; the exit code says that there is one."""
    first, second, third = files_of(folder / "data" / "audit")
    lines = lines_of(second)
    second.write_bytes(b"\n".join((*lines[:2], *lines[3:], b"")))
    said = audit(folder, "verify")
    assert said.code == 1
    assert said.output.splitlines() == [
        f"data/audit/{second.name}:3: missing: line 9 is missing before line 10",
        "3 files: 1 wrong",
    ]
    found, summary = audit(folder, "verify", "--json").objects
    assert found == {
        "kind": "missing",
        "wrong": True,
        "text": "line 9 is missing before line 10",
        "writer": second.name.partition(".")[0],
        "file": f"data/audit/{second.name}",
        "line": 3,
    }
    assert summary == {"summary": {"files": 3, "anchors": 0, "wrong": 1, "notes": 0}}
    first.unlink()
    second.unlink()
    assert audit(folder, "verify").code == 1
    partial = audit(folder, "verify", "--partial")
    begins = f"begins with line {entries_in(third)[0]['seq']}"
    assert (partial.code, begins in partial.output) == (0, True)


def test_anchors(folder: Path) -> None:
    """Checkpoints from the server's log, among other lines, are held against the files."""
    *_, last = files_of(folder / "data" / "audit")
    lines = lines_of(last)
    end = {"event": "audit_checkpoint", "writer": last.name.partition(".")[0], "seq": 17, "hash": digest(lines[-1])}
    (folder / "server.log").write_text(f"not JSON\n2026-01-01 host {json.dumps(end)}\n{{}}\n")
    held = audit(folder, "verify", "--anchors", "server.log")
    assert (held.code, held.output) == (0, "3 files, 1 checkpoints of --anchors: nothing wrong\n")
    (folder / "other.log").write_text(f"{json.dumps({'log': json.dumps(end)})}\n")
    none = audit(folder, "verify", "--anchors", "other.log")  # else it would look as if they had held
    assert (none.code, "other.log has no checkpoint" in none.errors) == (2, True)
    last.write_bytes(b"\n".join((*lines[:-2], b"")))
    assert "truncated" not in audit(folder, "verify").output
    anchored = audit(folder, "verify", "--anchors", "server.log")
    assert anchored.code == 1
    assert "ends with line 15, but line 17 was seen by server.log:2" in anchored.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "nowhere"], "nowhere cannot be read: No such file or directory"),
        (["verify", "--public-key", "nowhere"], "nowhere cannot be read"),
        (["verify", "--public-key", "data/audit/signing.key"], "is no Ed25519 public key in PEM form"),
        (["verify", "empty"], "There are no audit files there."),
        (["verify", "damaged.gz"], "damaged.gz"),
        (["verify", "emptied.jsonl"], "The audit files there are all empty."),
        (["reconcile", "--cloudtrail", "empty"], "There are no *.json or *.json.gz files in empty."),
        (["reconcile", "empty", "--cloudtrail", "trail.json"], "There are no audit files there."),
        (
            ["reconcile", "--cloudtrail", "trail.json", "--principal", "keystow"],
            "--principal keystow is neither the ARN",
        ),
        (["public-key", "--config", "elsewhere.toml"], "elsewhere/audit/signing.key cannot be opened"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], says: str) -> None:
    """In words, with exit code 2."""
    (folder / "empty").mkdir()
    (folder / "emptied.jsonl").touch()
    (folder / "trail.json").write_text('{"Records": []}')
    (folder / "damaged.gz").write_bytes(b"\x1f\x8b and nothing else")
    (folder / "elsewhere.toml").write_text('data_dir = "elsewhere"')
    said = audit(folder, *arguments)
    assert (said.code, said.output) == (2, "")
    assert says in said.errors
    assert "Traceback" not in said.errors


def cut(folder: Path) -> None:
    """The newest two lines are gone: those that end the chain."""
    last = files_of(folder / "data" / "audit")[-1]
    last.write_bytes(b"\n".join((*lines_of(last)[:-2], b"")))


def test_a_chain_that_is_cut_short(folder: Path) -> None:
    """The server does not run, and nobody saw the chain end so: exit code 1. Of copies one has to say that it ended."""
    cut(folder)
    said = audit(folder, "verify")
    assert (said.code, "unended: has no end after line 15" in said.output) == (1, True)
    (folder / "key.pem").write_text(audit(folder, "public-key").output)
    shutil.copytree(folder / "data" / "audit", folder / "copy")
    said = audit(folder, "verify", "--public-key", "key.pem", "copy")
    assert (said.code, "open: has no end after line 15" in said.output) == (0, True)
    said = audit(folder, "verify", "--public-key", "key.pem", "--ended", "copy")
    assert (said.code, "unended: has no end after line 15" in said.output) == (1, True)


def test_a_chain_that_is_cut_short_among_others(folder: Path) -> None:
    """It does not hide behind other directories that are verified with it, nor behind a link in its own."""
    (folder / "archive").mkdir()
    for key in (folder / "data" / "audit").glob("*.key"):
        shutil.copy(key, folder / "archive")
    write_now(folder / "archive", 1)
    cut(folder)
    said = audit(folder, "verify", "data/audit", "archive")
    assert (said.code, said.output.count(": unended: ")) == (1, 1)
    [archived] = files_of(folder / "archive")
    (folder / "data" / "audit" / archived.name).symlink_to(archived)
    said = audit(folder, "verify")
    assert (said.code, said.output.count(": unended: ")) == (1, 1)


def test_some_files_of_a_chain(folder: Path) -> None:
    """Who names files has not shown what stands in others: neither the chain's end nor who saw it."""
    first, *_ = files_of(folder / "data" / "audit")
    said = audit(folder, "verify", "--partial", first)
    assert (said.code, said.output.count(": open: ")) == (0, 1)
    cut(folder)
    killed = files_of(folder / "data" / "audit")
    write_now(folder / "data" / "audit", 1)
    said = audit(folder, "verify", "--partial", *killed)
    assert (said.code, said.output.count(": open: ")) == (0, 1)


async def test_a_chain_that_was_seen_while_its_writer_ran(folder: Path) -> None:
    """That explains no missing end: the writer may have gone on, and its end may have been cut off later."""
    directory = folder / "data" / "audit"
    before = files_of(directory)
    async with open_log(directory) as log:
        await until(lambda: len(files_of(directory)) > len(before))  # it is begun in another thread
        [file] = set(files_of(directory)) - set(before)
        await until(lambda: len(lines_of(file)) == 2)
        async with open_log(directory):
            pass
        seen = file.read_bytes()
        log.record(rpc())
    assert audit(folder, "verify").output == "5 files: nothing wrong\n"
    file.write_bytes(seen)
    said = audit(folder, "verify")
    assert (said.code, said.output.count(": unended: has no end after line 2.")) == (1, 1)
    (folder / "key.pem").write_text(audit(folder, "public-key").output)
    shutil.copytree(directory, folder / "copy")
    assert audit(folder, "verify", "--public-key", "key.pem", "--ended", "copy").code == 1


def test_a_writer_that_was_killed(folder: Path) -> None:
    """What is left is where the next one saw it end, so nothing was cut off since."""
    cut(folder)
    write_now(folder / "data" / "audit", 1)
    said = audit(folder, "verify")
    assert (said.code, ": open: has no end after line 15" in said.output) == (0, True)
    assert "line 15 was seen by" in said.output
    (folder / "key.pem").write_text(audit(folder, "public-key").output)
    shutil.copytree(folder / "data" / "audit", folder / "copy")
    assert audit(folder, "verify", "--public-key", "key.pem", "--ended", "copy").code == 0
    cut(folder)  # of the next one
    assert audit(folder, "verify").code == 1


def test_a_writer_that_was_killed_between_two_files(folder: Path) -> None:
    """It had begun the next one, and written nothing to it: the chain ends where the one before does."""
    *_, middle, last = files_of(folder / "data" / "audit")
    last.write_bytes(b"")
    write_now(folder / "data" / "audit", 1)
    said = audit(folder, "verify")
    assert (said.code, said.output.count(": open: ")) == (0, 1)
    middle.write_bytes(b"\n".join((*lines_of(middle)[:-1], b"")))
    said = audit(folder, "verify")
    assert (said.code, said.output.count(": truncated: ")) == (1, 1)


def test_a_writer_that_was_killed_when_files_are_moved_away(folder: Path) -> None:
    """Every file of a later writer bears witness by itself, so that any of them will do."""
    cut(folder)
    write_now(folder / "data" / "audit", 9, small_files(2000))
    *killed, first, second, third = files_of(folder / "data" / "audit")
    for kept in (first, second, third):
        said = audit(folder, "verify", "--partial", "--ended", *killed, kept)
        assert f"{killed[-1].name}: open: has no end after line 15" in said.output


async def test_a_writer_that_runs(folder: Path) -> None:
    """Of the server's own files it is seen that they have no end yet, whatever file it writes."""
    async with open_log(folder / "data" / "audit", policy=small_files(2000)) as log:
        for number in range(9):
            log.record(rpc(number))
            await log.durable()
        assert len(files_of(folder / "data" / "audit")) == 6
        said = await asyncio.to_thread(audit, folder, "verify")
        assert (said.code, said.output.count(": open: "), "its writer runs" in said.output) == (0, 1, True)
    assert audit(folder, "verify").output == "6 files: nothing wrong\n"


async def test_a_writer_that_runs_beside_a_link(folder: Path) -> None:
    """Whatever is named like a file of the log, who runs is seen all the same."""
    directory = folder / "data" / "audit"
    [kept, *_] = files_of(directory)
    kept.rename(folder / kept.name)
    kept.symlink_to(folder / kept.name)
    async with open_log(directory):
        said = await asyncio.to_thread(audit, folder, "verify")
    assert (said.code, said.output.count(": open: "), "its writer runs" in said.output) == (0, 1, True)


def test_a_file_without_a_line(folder: Path) -> None:
    """A writer was killed at its very beginning, or had no room. That is noted for good, and no more than that."""
    path = folder / "data" / "audit" / "20260101T000000000Z-00000000.000001.jsonl"
    path.touch()
    for arguments in ([], ["--ended"]):
        said = audit(folder, "verify", *arguments)
        assert (said.code, f"data/audit/{path.name}: open: holds no line" in said.output) == (0, True)


def test_finding_an_object(folder: Path) -> None:
    """An object's name becomes what the log has for it; a tenant's own key, that of this tenant alone."""
    hashes = audit(folder, "object-hash", TENANT, "key", "other").output.splitlines()
    assert {entry["object"] for entry in entries_of(folder / "data" / "audit", "rpc")} == {hashes[0]}
    tenants_key = bytes.fromhex(audit(folder, "tenant-hash-key", TENANT).output)
    assert hashes == [hmac.digest(tenants_key, name, "sha256").hex() for name in (b"key", b"other")]
