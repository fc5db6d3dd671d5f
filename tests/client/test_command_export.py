"""keystow export: an archive that appears when it is whole, and goes on after whatever ended the command."""

import contextlib
import io
import json
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import pytest

from client.command import KEYSTOW, Command
from client.content import names
from client.exporting import MEMBERS, OBJECTS, TENANT, Exporting, members_of, registered, without_manifests
from client.relay import Relay
from keystow_client import Client, WriteMode
from objects.damage import flip
from objects.unpackers import files_below, untar_here

MIB = 1 << 20
FILE, PART, CHECKPOINT = "acme.tar", "acme.tar.keystow-part", "acme.tar.keystow-checkpoint"
EXPORT = ("export", TENANT, "-o", FILE)


@pytest.fixture
def keystow(exporting: Exporting, tmp_path: Path) -> Command:
    """The command, for the server with many checkpoints, in an empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return Command(exporting.server.address, directory)


def until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait for what must come while the process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def size_at(exporting: Exporting, checkpoints: int) -> int:
    """Of the archive, after so many checkpoints."""
    return exporting.checkpoints[checkpoints - 1].archive_size if checkpoints else 0


@contextlib.contextmanager
def held_after(exporting: Exporting, keystow: Command, checkpoints: int, *arguments: str) -> Iterator[Any]:
    """An export that goes no further than some bytes beyond so many checkpoints, and has written these bytes."""
    size = size_at(exporting, checkpoints)
    part, state = keystow.directory / PART, keystow.directory / CHECKPOINT
    with Relay(exporting.port) as relay:
        relay.holds.append(("got", size + MIB + MIB // 2))
        command = Command(relay.address, keystow.directory)
        with command.start(*(arguments or EXPORT), stdout=PIPE, stderr=PIPE, stdin=DEVNULL) as process:
            try:
                until(lambda: state.exists() and json.loads(state.read_bytes())["archive_size"] == size, process)
                until(lambda: part.stat().st_size > size, process)
                yield process
            finally:
                process.kill()
        relay.let_go()


def killed_after(exporting: Exporting, keystow: Command, checkpoints: int, *arguments: str) -> None:
    """The same, ended with SIGKILL."""
    with held_after(exporting, keystow, checkpoints, *arguments) as process:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def test_an_archive_is_exported(exporting: Exporting, keystow: Command) -> None:
    """To a file, which is printed, or standard output; all objects, those with a prefix, or those in a list."""
    result = keystow(*EXPORT)
    assert (result.code, result.lines, result.err) == (0, [FILE], "")
    assert (keystow.directory / FILE).read_bytes() == exporting.archive
    assert names(keystow.directory) == [FILE]
    result = keystow("export", f"{TENANT}:", "-o", "-", "--json")
    assert (result.code, result.out, result.err) == (0, exporting.archive, "")
    assert list(members_of(keystow("export", f"{TENANT}:c/", "-o", "-").out)) == ["c/d", "c/e", "c/f"]
    (keystow.directory / "keys").write_text("c/e\na/b\n", encoding="utf-8")
    for keys, stdin in (("keys", b""), ("-", b"c/e\na/b")):
        result = keystow("export", TENANT, "-o", "-", "--keys-from", keys, stdin=stdin)
        assert members_of(result.out) == {"c/e": OBJECTS["c/e"], "a/b": OBJECTS["a/b"]}


def test_a_result_for_programs(exporting: Exporting, keystow: Command) -> None:
    """With --json the summary; zip is a format like the other."""
    result = keystow.in_process("export", TENANT, "--format", "zip", "-o", "acme.zip", "--json")
    [record] = result.records
    archive = (keystow.directory / "acme.zip").read_bytes()
    assert record["crc32c"]
    assert {name: record[name] for name in record if name != "crc32c"} == {
        "path": "acme.zip",
        "object_count": len(OBJECTS),
        "failed_count": 0,
        "total_size": sum(map(len, OBJECTS.values())),
        "archive_size": len(archive),
        "complete": True,
    }
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert without_manifests({name: opened.read(name) for name in opened.namelist()}) == MEMBERS


@pytest.mark.parametrize("checkpoints", [0, 1, 2])
def test_a_killed_export_goes_on(exporting: Exporting, keystow: Command, checkpoints: int) -> None:
    """Wherever SIGKILL met it: to the same archive, without fetching again what a checkpoint covers."""
    killed_after(exporting, keystow, checkpoints)
    assert names(keystow.directory) == [CHECKPOINT, PART]
    assert (keystow.directory / CHECKPOINT).stat().st_mode & 0o777 == 0o600
    again = keystow.in_process(*EXPORT)
    assert again.code == 4
    assert "--continue" in again.err
    with Relay(exporting.port) as relay:
        result = Command(relay.address, keystow.directory).in_process(*EXPORT, "--continue")
        assert (result.code, result.lines) == (0, [FILE])
        left = len(exporting.archive) - size_at(exporting, checkpoints)
        assert left < relay.passed["got"] < left + MIB // 2
    assert (keystow.directory / FILE).read_bytes() == exporting.archive
    assert names(keystow.directory) == [FILE]


def test_it_goes_on_more_than_once(exporting: Exporting, keystow: Command) -> None:
    """Each time from the checkpoint that the last one has reached."""
    killed_after(exporting, keystow, 1)
    killed_after(exporting, keystow, 1, *EXPORT, "--continue")
    keystow("export", TENANT, "-o", FILE, "--continue")
    assert (keystow.directory / FILE).read_bytes() == exporting.archive


def test_a_continued_archive_holds_what_stands_now(exporting: Exporting, keystow: Command) -> None:
    """After the checkpoint; both Python's tarfile and the system's tar read the joined archive."""
    tenant = "goes-on"
    arguments = ("export", tenant, "-o", FILE)
    with Client(exporting.server.address) as client:
        registered(client, tenant)
        killed_after(exporting, keystow, 2, *arguments)
        client.put(tenant, "c/e2", b"new")
        client.put(tenant, "c/f", b"newer", mode=WriteMode.OVERWRITE)
        client.delete(tenant, "a")
    assert keystow(*arguments, "--continue").code == 0
    expected = MEMBERS | {"c/e2": b"new", "c/f": b"newer"}
    assert members_of((keystow.directory / FILE).read_bytes()) == expected
    (keystow.directory / "unpacked").mkdir()
    untar_here(keystow.directory / FILE, keystow.directory / "unpacked")
    assert without_manifests(files_below(keystow.directory / "unpacked")) == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_goes_on(
    exporting: Exporting, keystow: Command, number: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM leave what --continue needs, quietly."""
    with held_after(exporting, keystow, 1) as process:
        process.send_signal(number)
        assert process.communicate() == (b"", b"")
        assert process.returncode == code
    assert names(keystow.directory) == [CHECKPOINT, PART]
    assert keystow(*EXPORT, "--continue").code == 0
    assert (keystow.directory / FILE).read_bytes() == exporting.archive


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", f"{TENANT}:a", "-o", FILE),
        (*EXPORT, "--on-error", "continue"),
        (*EXPORT, "--keys-from", "keys"),
        ("export", "other", "-o", FILE),
    ],
)
def test_another_export_is_not_continued(
    exporting: Exporting, keystow: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Nothing is joined that does not belong together, and the message says what it belongs to."""
    (keystow.directory / "keys").write_text("a", encoding="utf-8")
    (keystow.directory / PART).write_bytes(b"what has come")
    state = {
        "version": 1,
        "selection": {"tenant": TENANT, "prefix": "", "keys_sha256": "", "on_error": "stop"},
        "archive_size": 0,
        "crc32c": 0,
        "checkpoint_token": "",
    }
    (keystow.directory / CHECKPOINT).write_text(json.dumps(state), encoding="utf-8")
    result = keystow.in_process(*arguments, "--continue")
    assert result.code == 4
    assert f"an unfinished export of {TENANT}: with --on-error stop" in result.err
    assert (keystow.directory / PART).read_bytes() == b"what has come"


def test_there_must_be_something_to_continue(exporting: Exporting, keystow: Command) -> None:
    """Without a part, without its checkpoint, with one that cannot be read: each is told, with what to do."""
    result = keystow.in_process(*EXPORT, "--continue")
    assert (result.code, result.lines) == (4, [])
    assert "leave --continue out" in result.err
    (keystow.directory / PART).write_bytes(b"what has come")
    assert "--force begins anew" in keystow.in_process(*EXPORT, "--continue").err
    for unreadable in (b"", b"[]", b'{"version": 2}', b'{"version": 1}'):
        (keystow.directory / CHECKPOINT).write_bytes(unreadable)
        result = keystow.in_process(*EXPORT, "--continue")
        assert result.code == 4
        assert "cannot be read" in result.err
        assert json.loads(keystow.in_process(*EXPORT, "--continue", "--json").err)["error"]["reason"] == "StateError"
    assert keystow.in_process(*EXPORT, "--force").code == 0
    assert names(keystow.directory) == [FILE]
    assert (keystow.directory / FILE).read_bytes() == exporting.archive


def test_a_part_that_was_altered_is_not_continued(exporting: Exporting, keystow: Command) -> None:
    """What the checkpoint covers is read and compared first."""
    killed_after(exporting, keystow, 1)
    flip(1000)(keystow.directory / PART)
    result = keystow.in_process(*EXPORT, "--continue")
    assert result.code == 7
    assert "--force begins anew" in result.err
    assert keystow.in_process(*EXPORT, "--force").code == 0
    assert (keystow.directory / FILE).read_bytes() == exporting.archive


def test_two_processes_do_not_write_one_archive(exporting: Exporting, keystow: Command) -> None:
    """The second one is told, and touches nothing."""
    with held_after(exporting, keystow, 1):
        for option in ("--continue", "--force"):
            result = keystow.in_process(*EXPORT, option)
            assert result.code == 4
            assert "another process" in result.err
    assert keystow.in_process(*EXPORT, "--continue").code == 0
    assert (keystow.directory / FILE).read_bytes() == exporting.archive


@pytest.mark.parametrize("archive_format", ["tar", "zip"])
def test_a_file_is_replaced_only_on_demand(exporting: Exporting, keystow: Command, archive_format: str) -> None:
    """Without --force it is spared; a replaced file hands on its permissions; a directory is no destination."""
    (keystow.directory / FILE).write_bytes(b"old")
    (keystow.directory / FILE).chmod(0o600)
    arguments = (*EXPORT, "--format", archive_format)
    result = keystow.in_process(*arguments)
    assert result.code == 4
    assert "--force" in result.err
    assert (keystow.directory / FILE).read_bytes() == b"old"
    assert keystow.in_process(*arguments, "--force").code == 0
    assert (keystow.directory / FILE).stat().st_mode & 0o777 == 0o600
    assert (keystow.directory / FILE).stat().st_size > MIB
    assert names(keystow.directory) == [FILE]
    assert keystow.in_process("export", TENANT, "-o", ".", "--format", archive_format, "--force").code == 2


def test_a_failure_before_the_first_byte_leaves_nothing(exporting: Exporting, keystow: Command) -> None:
    """A wrong tenant or key is put right without cleaning up."""
    result = keystow.in_process("export", "nobody", "-o", FILE)
    assert result.code == 3
    assert "TENANT_NOT_FOUND" in result.err
    (keystow.directory / "keys").write_bytes(b"nothing")
    assert keystow.in_process(*EXPORT, "--keys-from", "keys").code == 3
    assert names(keystow.directory) == ["keys"]


def test_an_archive_of_nothing_is_told(keystow: Command) -> None:
    """It is whole, but whoever has mistyped the prefix should know."""
    result = keystow.in_process("export", f"{TENANT}:mistyped", "-o", FILE)
    assert (result.code, result.lines, result.err) == (0, [FILE], "keystow: 0 objects exported, 0 B\n")


def test_what_damage_leaves_out_is_told(exporting: Exporting, keystow: Command) -> None:
    """With --on-error stop it ends the export; with continue each failure is told, and the code is 9."""
    tenant = "leaves-out"
    with Client(exporting.server.address) as client:
        registered(client, tenant)
    flip(-200)(exporting.largest(tenant))
    result = keystow.in_process("export", tenant, "-o", FILE)
    assert result.code == 7
    assert f"keystow: {tenant}:a/b: OBJECT_TAMPERED" in result.err
    assert f"{PART} holds what has come: --continue meets this object again; --force --on-error continue" in result.err
    [failure] = keystow.in_process("export", tenant, "-o", FILE, "--continue", "--json").failures
    assert failure["subject"] == f"{tenant}:a/b"
    result = keystow.in_process("export", tenant, "-o", "some.tar", "--on-error", "continue")
    assert (result.code, result.lines) == (9, ["some.tar"])
    assert f"keystow: {tenant}:a/b: OBJECT_TAMPERED" in result.err
    assert "6 objects exported, 4.0 MiB; 1 failed" in result.err
    expected = {name: data for name, data in MEMBERS.items() if name != "a%/b"}
    assert members_of((keystow.directory / "some.tar").read_bytes()) == expected
    result = keystow.in_process("export", tenant, "-o", "json.tar", "--on-error", "continue", "--json")
    [failure] = result.failures
    assert (failure["subject"], failure["reason"]) == (f"{tenant}:a/b", "OBJECT_TAMPERED")
    assert not result.records[0]["complete"]
    result = keystow("export", tenant, "-o", "-", "--on-error", "continue")
    assert (result.code, members_of(result.out)) == (9, expected)


def test_a_full_disk_is_no_end(exporting: Exporting, keystow: Command) -> None:
    """It is said in words, and once there is room the export goes on. A limit of the process stands for the disk."""
    limited = ["bash", "-c", f'ulimit -f {5 * MIB // 1024}; exec "$@"', "bash", str(KEYSTOW), *EXPORT]
    done = subprocess.run(limited, cwd=keystow.directory, env=keystow.environment, stderr=PIPE, check=False)
    err = done.stderr
    assert done.returncode == 1
    assert f"File too large: {PART}" in err.decode()
    assert "--continue goes on with it" in err.decode()
    assert keystow(*EXPORT, "--continue").code == 0
    assert (keystow.directory / FILE).read_bytes() == exporting.archive
    with Path("/dev/full").open("wb") as full:
        process = keystow.start("export", TENANT, "-o", "-", stdout=full, stderr=PIPE)
        _, err = process.communicate()
    assert (process.returncode, err) == (1, b"keystow: No space left on device\n")


def test_a_pipe_gets_every_byte_once(exporting: Exporting, keystow: Command) -> None:
    """The system's tar unpacks what comes over a connection that breaks twice."""
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", 4 * MIB), ("got", 2 * MIB)])
        with (
            Command(relay.address, keystow.directory).start(
                "export", TENANT, "-o", "-", stdout=PIPE, stderr=PIPE, stdin=DEVNULL
            ) as process,
            subprocess.Popen(["tar", "-x", "-C", keystow.directory], stdin=process.stdout) as tar,
        ):
            assert tar.wait() == 0
            assert process.stderr is not None
            assert process.stderr.read().count(b"trying again") >= 2
        assert not relay.cuts
    assert process.returncode == 0
    assert without_manifests(files_below(keystow.directory)) == MEMBERS


def test_a_reader_that_has_seen_enough_is_no_failure(exporting: Exporting, keystow: Command) -> None:
    """As with cat."""
    with keystow.start("export", TENANT, "-o", "-", stdout=PIPE, stderr=PIPE, stdin=DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_progress_is_shown_on_a_terminal(exporting: Exporting, keystow: Command) -> None:
    """A bar, and how it went; an archive itself is nothing for a terminal."""
    code, shown = keystow.on_terminal(*EXPORT)
    assert code == 0
    assert "7 objects exported, 7.0 MiB" in shown
    code, shown = keystow.on_terminal("export", TENANT, "-o", "-")
    assert code == 2
    assert "nothing for a terminal" in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-o", "-", "--continue"), "FILE"),
        (("-o", FILE, "--continue", "--format", "zip"), "zip"),
        (("-o", FILE, "--keys-from", "none"), "no key"),
        (("-o", FILE, "--keys-from", "binary"), "line 2"),
        (("-o", FILE, "--format", "rar"), "rar"),
        ((), "--output"),
    ],
)
def test_usage_is_explained(exporting: Exporting, keystow: Command, arguments: tuple[str, ...], told: str) -> None:
    """A contradictory command line is code 2, and leaves nothing."""
    (keystow.directory / "none").write_bytes(b"\n\n")
    (keystow.directory / "binary").write_bytes(b"a\n\xff\n")
    result = keystow.in_process("export", TENANT, *arguments)
    assert result.code == 2
    assert told in result.err
    assert names(keystow.directory) == ["binary", "none"]
    assert keystow.in_process("export", f"{TENANT}:a", "-o", FILE, "--keys-from", "none").code == 2
