"""How the command fails: one line, a code that says the class, JSON for programs, and nothing half done."""

import asyncio
import signal
import socket
import threading
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as rich

from client.command import KEYSTOW, Command
from client.content import names, noise
from client.scripted import MIB, Context, ScriptedServer, answer_get, fail, fail_bare, get_responses
from keystow.v1 import storage_pb2 as pb

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (fail(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "none"), 2),
        (fail(Code.OUT_OF_RANGE, "RANGE_NOT_SATISFIABLE", "none"), 2),
        (fail(Code.NOT_FOUND, "OBJECT_NOT_FOUND", "none"), 3),
        (fail(Code.NOT_FOUND, "TENANT_NOT_FOUND", "none"), 3),
        (fail(Code.NOT_FOUND, "KMS_KEY_NOT_FOUND", "none"), 6),
        (fail(Code.ALREADY_EXISTS, "OBJECT_EXISTS", "none"), 4),
        (fail(Code.FAILED_PRECONDITION, "VERSION_MISMATCH", "none"), 4),
        (fail(Code.ABORTED, "OBJECT_CHANGED", "restart"), 4),
        (fail(Code.PERMISSION_DENIED, "CALLER_NOT_AUTHORIZED", "none"), 5),
        (fail(Code.UNAUTHENTICATED, "CREDENTIALS_INVALID", "none"), 5),
        (fail(Code.PERMISSION_DENIED, "KMS_ACCESS_DENIED", "wait"), 6),
        (fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"), 6),
        (fail(Code.DATA_LOSS, "OBJECT_TAMPERED", "none"), 7),
        (fail(Code.UNAVAILABLE, "SHUTTING_DOWN", "retry"), 8),
        (fail(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "retry"), 8),
        (fail_bare(Code.UNAVAILABLE), 8),
        (fail_bare(Code.CANCELLED), 8),
        (fail(Code.UNIMPLEMENTED, "NOT_IMPLEMENTED", "none"), 1),
        (fail(Code.INTERNAL, "INTERNAL", "retry"), 1),
        (fail(Code.FAILED_PRECONDITION, "SOMETHING_NEW", "wait"), 4),
    ],
)
def test_the_exit_code_says_the_class(server: ScriptedServer, keystow: Command, step: Any, code: int) -> None:
    """One line on stderr, nothing on stdout, and the documented code."""
    server.storage.next("Stat", step)
    result = keystow.in_process("stat", "acme:k", "--retry-for", "0")
    assert (result.code, result.out) == (code, b"")
    assert result.err.count("\n") == 1
    assert result.err.startswith("keystow: ")


def test_a_failure_for_people(server: ScriptedServer, keystow: Command) -> None:
    """Reason, what to do, requestId, and what is wrong with each field."""
    bad = rich.BadRequest(field_violations=[{"field": "key", "description": "too long"}])
    server.storage.next("Get", fail(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "none", bad))
    result = keystow("get", "acme:k", "dest")
    assert result.err == "keystow: acme:k: REQUEST_INVALID: What to do. (requestId r-1)\n  key: too long\n"


def test_a_failure_for_programs(server: ScriptedServer, keystow: Command) -> None:
    """With --json stderr holds one object a failure, and nothing else."""
    bad = rich.BadRequest(field_violations=[{"field": "key", "description": "too long"}])
    server.storage.next("Get", fail(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "none", bad))
    result = keystow.in_process("--json", "get", "acme:k", "dest")
    assert result.out == b""
    assert result.failures == [
        {
            "subject": "acme:k",
            "code": "INVALID_ARGUMENT",
            "reason": "REQUEST_INVALID",
            "recovery": "none",
            "message": "What to do.",
            "metadata": {"recovery": "none", "requestId": "r-1"},
            "violations": [{"subject": "key", "description": "too long"}],
            "attempts": 1,
        }
    ]


def test_local_failures_for_programs(keystow: Command) -> None:
    """What the local system refuses is told in the same form."""
    result = keystow.in_process("put", "--json", "missing", "acme:")
    assert (result.code, result.out) == (1, b"")
    (failure,) = result.failures
    assert (failure["subject"], failure["reason"]) == ("missing", "FileNotFoundError")


def test_retries_are_told_and_counted(server: ScriptedServer, keystow: Command) -> None:
    """Whoever waits learns what for; success after that is success."""
    server.storage.add("k", b"data")
    server.storage.next("Stat", *[fail(Code.UNAVAILABLE, "STORE_UNAVAILABLE", "retry")] * 2)
    result = keystow.in_process("stat", "acme:k")
    assert result.code == 0
    assert result.err.count("trying again") == 2


def test_nobody_at_the_address(keystow: Command) -> None:
    """A wrong address is code 8, wherever the option stands."""
    for arguments in (["--address", "127.0.0.1:1", "ls", "acme"], ["ls", "--address", "127.0.0.1:1", "acme"]):
        assert keystow.in_process(*arguments, "--retry-for", "0").code == 8


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["put"],
        ["put", "f", "no-colon"],
        ["put", "f", ":no-tenant"],
        ["put", "a", "b", "acme:key"],
        ["put", "-", "acme:"],
        ["put", "f", "acme:", "--metadata", "no-equals"],
        ["put", "f", "acme:", "--size", "7"],
        ["put", "f", "acme:k", "--overwrite", "--if-version-id", "v"],
        ["put", "-r", "d", "acme:", "--if-version-id", "v"],
        ["get", "acme:"],
        ["get", "acme:a", "acme:b"],
        ["get", "acme:a", "nowhere/"],
        ["get", "acme:a", "acme:b", "nowhere"],
        ["get", "acme:a", "acme:b", "-"],
        ["get", "-r", "acme:", "-"],
        ["get", "-r", "acme:", ".", "--offset", "1"],
        ["ls", "acme:", "--retry-for", "-1"],
        ["get", "acme:a", "-j", "0"],
    ],
)
def test_usage_is_explained(server: ScriptedServer, keystow: Command, arguments: list[str]) -> None:
    """A contradictory command line is code 2 before anything is asked of the server."""
    result = keystow.in_process(*arguments)
    assert (result.code, result.out) == (2, b"")
    assert "Error:" in result.err
    assert not any(server.storage.requests.values())


@pytest.mark.parametrize("arguments", [["stat", b"acme:\xff"], ["ls", b"ac\xff:"], ["put", "file", b"acme:k\xff"]])
def test_a_key_that_is_no_text_is_refused(keystow: Command, arguments: list[str | bytes]) -> None:
    """Bytes that are not UTF-8 cannot be a key or a tenant, and that is said in words, not by a codec."""
    (keystow.directory / "file").touch()
    result = keystow.in_process(*arguments)
    assert result.code == 2
    assert "is not valid UTF-8" in result.err
    assert "codec" not in result.err
    assert "surrogate" not in result.err
    [failure] = keystow.in_process(*arguments, "--json").failures
    assert failure["subject"]
    assert "is not valid UTF-8" in failure["message"]


@pytest.mark.parametrize(
    ("method", "arguments", "subject"),
    [
        ("Stat", ["stat", "acme:k"], "acme:k"),
        ("List", ["ls", "acme:"], "acme:"),
        ("Delete", ["rm", "acme:k"], "acme:k"),
        ("GetServerInfo", ["server-info"], "server-info"),
    ],
)
def test_a_failure_says_what_it_is_about(
    server: ScriptedServer, keystow: Command, method: str, arguments: list[str], subject: str
) -> None:
    """Programs that run many commands find the subject in the failure itself; without an object it is the command."""
    server.storage.next(method, fail(Code.UNAVAILABLE, "STORE_UNAVAILABLE", "retry"))
    [failure] = keystow.in_process(*arguments, "--json", "--retry-for", "0").failures
    assert failure["subject"] == subject


def test_help_documents_the_exit_codes(keystow: Command) -> None:
    """--help names each code, and every command has help of its own."""
    shown = keystow("--help").out.decode()
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130):
        assert f"\n  {code:>3}  " in shown
    assert keystow("--version").out.decode().count(".") == 2


def test_many_failures_of_one_class_keep_their_code(server: ScriptedServer, keystow: Command) -> None:
    """If all failed alike the code says how; if not it is 1, and the good ones are there."""
    for name in ("a", "b", "c"):
        server.storage.add(f"d/{name}", b"data")
    damaged = fail(Code.DATA_LOSS, "OBJECT_TAMPERED", "none")
    server.storage.next("Get", damaged, damaged)
    result = keystow.in_process("get", "-r", "-j", "1", "acme:d/", "dest")
    assert (result.code, result.lines) == (7, ["dest/c"])
    server.storage.next("Get", damaged, fail(Code.NOT_FOUND, "OBJECT_NOT_FOUND", "none"))
    result = keystow.in_process("get", "-r", "-j", "1", "acme:d/", "dest2")
    assert (result.code, result.lines) == (1, ["dest2/c"])
    assert "1 transferred, 4 B; 2 failed" in result.err


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        ("KMS_KEY_DISABLED", Code.FAILED_PRECONDITION, 6),
        ("CALLER_NOT_AUTHORIZED", Code.PERMISSION_DENIED, 5),
        ("TENANT_NOT_FOUND", Code.NOT_FOUND, 3),
        ("STORE_UNAVAILABLE", Code.UNAVAILABLE, 8),
    ],
)
def test_what_concerns_everything_stops_everything(
    server: ScriptedServer, keystow: Command, reason: str, status: Code, code: int
) -> None:
    """A disabled key is not tried out on each of a million files."""
    tree = keystow.directory / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / str(number)).touch()
    server.storage.next("PutSmall", *[fail(status, reason, "wait")] * 50)
    result = keystow.in_process("put", "-r", "-j", "2", "tree", "acme:", "--retry-for", "0")
    assert result.code == code
    assert "the rest was not tried" in result.err
    assert len(server.storage.requests["PutSmall"]) <= 4


def test_one_object_has_no_rest(server: ScriptedServer, keystow: Command) -> None:
    """Nobody is told that something was not tried where there was nothing else."""
    server.storage.next("Get", fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"))
    result = keystow.in_process("get", "acme:k", "dest")
    assert (result.code, result.err.count("\n")) == (6, 1)


@pytest.mark.parametrize("arguments", [("server-info",), ("ls", "acme"), ("cat", "acme:k"), ("get", "acme:k", "-")])
def test_results_that_cannot_be_written(server: ScriptedServer, keystow: Command, arguments: tuple[str, ...]) -> None:
    """Where standard output is closed or full, that is a failure in one line, and no other file gets the results."""
    server.storage.add("k", b"data")
    with Path("/dev/full").open("wb") as full:
        for streams in ({"closed": (1,)}, {"stdout": full}):
            with keystow.start(*arguments, stderr=PIPE, **streams) as process:
                _, err = process.communicate()
            assert process.returncode == 1
            assert err.startswith(b"keystow: ")
            assert err.count(b"\n") == 1


def test_failures_that_nobody_can_hear(keystow: Command) -> None:
    """Where standard error is closed, the exit code is all there is."""
    with keystow.start("get", "acme:missing", closed=(0, 2)) as process:
        process.wait()
    assert process.returncode == 3


def test_an_unreadable_file_is_reported(server: ScriptedServer, keystow: Command) -> None:
    """A file that cannot be read to its end fails alone."""
    tree = keystow.directory / "tree"
    tree.mkdir()
    (tree / "good").write_bytes(b"good")
    # Root may read everything, but not this: reading a process's memory at 0 fails.
    result = keystow("put", "/proc/self/mem", str(tree / "good"), "acme:")
    assert (result.code, result.lines) == (1, ["acme:good"])
    assert "/proc/self/mem" in result.err


def broken_download(server: ScriptedServer, *keep: int) -> Any:
    stored = server.storage.objects["acme", "k"]
    responses = get_responses(stored, pb.GetRequest())
    return answer_get(*[responses[number] for number in keep])


def test_an_incomplete_download_leaves_nothing(server: ScriptedServer, keystow: Command) -> None:
    """Neither a part nor a temporary file stays, and cat says by its code that something is missing."""
    server.storage.add("k", noise(2 * MIB))
    server.storage.next("Get", broken_download(server, 0, 1), broken_download(server, 0, 1))
    assert keystow("get", "acme:k", "dest", "--retry-for", "0").code == 8
    assert names(keystow.directory) == []
    result = keystow("cat", "acme:k", "--retry-for", "0")
    assert (result.code, result.out) == (8, noise(2 * MIB)[:MIB])


def test_a_corrupt_download_is_data_loss(server: ScriptedServer, keystow: Command) -> None:
    """What arrived and does not verify is class 7."""
    server.storage.add("k", noise(2 * MIB))
    server.storage.next("Get", broken_download(server, 0, 2, 3))
    assert keystow.in_process("get", "acme:k", "dest", "--retry-for", "0").code == 7
    assert names(keystow.directory) == []


def test_broken_pipes_are_quiet(server: ScriptedServer, keystow: Command) -> None:
    """A reader that has seen enough is no reason to complain."""
    server.storage.add("k", bytes(20 * MIB))
    header = pb.PutHeader(tenant_id="acme")
    for number in range(2000):
        info = pb.ObjectInfo(tenant_id="acme", key=f"long-enough-to-fill-a-pipe/{number:050}", size=1)
        server.storage.objects["acme", info.key] = type(server.storage.objects["acme", "k"])(info, b"", header)
    for arguments in (["cat", "acme:k"], ["get", "acme:k", "-"], ["ls", "acme"], ["ls", "--json", "acme"]):
        with keystow.start(*arguments, stdout=PIPE, stderr=PIPE, stdin=DEVNULL) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_no_part(
    server: ScriptedServer, keystow: Command, number: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM in the middle of a download remove what was begun, quietly."""
    server.storage.add("k", noise(3 * MIB))
    stored = server.storage.objects["acme", "k"]

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(stored, request)[:2]:
            await context.write(response)
        await asyncio.Event().wait()  # until the call is cancelled

    server.storage.next("Get", step)
    with keystow.start("get", "acme:k", "dest", stdout=PIPE, stderr=PIPE, stdin=DEVNULL) as process:
        while not any(path.stat().st_size for path in keystow.directory.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (code, b"", b"")
    assert names(keystow.directory) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_blocked_standard_input_does_not_hold_the_command(
    server: ScriptedServer, keystow: Command, number: signal.Signals, code: int
) -> None:
    """A signal ends put -, though nobody ever closes the pipe."""
    begun = threading.Event()

    async def step(_: Any, context: Context) -> None:
        await context.read()
        begun.set()
        await asyncio.Event().wait()

    server.storage.next("Put", step)
    ours, theirs = socket.socketpair()
    with ours, theirs, keystow.start("put", "-", "acme:k", stdin=theirs, stdout=PIPE, stderr=PIPE) as process:
        ours.sendall(bytes(MIB))
        begun.wait()
        process.send_signal(number)
        assert process.communicate() == (b"", b"")
    assert process.returncode == code


def test_an_early_refusal_ends_a_blocked_standard_input(server: ScriptedServer, keystow: Command) -> None:
    """The service's refusal is not held back by a pipe that stays open."""
    server.storage.next("Put", fail(Code.ALREADY_EXISTS, "OBJECT_EXISTS", "none"))
    ours, theirs = socket.socketpair()
    with ours, theirs, keystow.start("put", "-", "acme:k", stdin=theirs, stdout=PIPE, stderr=PIPE) as process:
        ours.sendall(bytes(MIB))
        _, err = process.communicate()
    assert process.returncode == 4
    assert b"OBJECT_EXISTS" in err


def test_shell_completion_is_there(keystow: Command) -> None:
    """--show-completion prints a script for the shell that asks, and the script's question is answered."""
    shown = keystow("--show-completion", "bash")
    assert shown.code == 0
    assert b"_KEYSTOW_COMPLETE=complete_bash" in shown.out
    assert KEYSTOW.exists()
