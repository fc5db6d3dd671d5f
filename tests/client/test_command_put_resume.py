"""keystow put --resume: an upload goes on after its process was killed, and nothing is sent twice or joined wrongly."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import grpc
import pytest

from client.command import Command
from client.content import names, noise
from client.relay import Relay
from client.scripted import Context, ScriptedServer, fail
from keystow_client import Client, KeyManagement
from keystow_client.cli.addresses import ObjectAddress
from keystow_client.cli.put_resume import UnfinishedUpload
from keystow_client.cli.state import StateError
from servers.keystow import KeystowServer, keystow_server

MIB = 1 << 20
DATA = noise(40 * MIB + 7)
Code = grpc.StatusCode


def port_of(server: KeystowServer) -> int:
    """Where a server listens."""
    return int(server.address.rpartition(":")[2])


def states(keystow: Command) -> list[Path]:
    """The files that tell of unfinished uploads."""
    return list(keystow.state_home.glob("keystow/uploads/*.json"))


def persisted(keystow: Command) -> int:
    """How many bytes the one unfinished upload is known to have."""
    size: int = json.loads(states(keystow)[0].read_bytes())["progress"]["persisted_size"] if states(keystow) else 0
    return size


@contextmanager
def held_after(port: int, keystow: Command, sent: int, least: int, *arguments: str) -> Iterator[Any]:
    """A put that cannot send more than so many bytes, and knows that at least so many are safe."""
    with Relay(port) as relay:
        relay.holds.append(("sent", sent))
        with Command(relay.address, keystow.directory).start(
            *arguments, stdout=PIPE, stderr=PIPE, stdin=DEVNULL
        ) as process:
            try:
                while persisted(keystow) < least:
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.01)
                yield process
            finally:
                process.kill()
        relay.let_go()


def killed_after(port: int, keystow: Command, sent: int, least: int, *arguments: str) -> None:
    """The same, ended with SIGKILL."""
    with held_after(port, keystow, sent, least, *arguments) as process:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def content_of(server: KeystowServer, tenant: str, key: str) -> bytes:
    """What is stored."""
    with Client(server.address) as client, client.get(tenant, key) as download:
        return b"".join(download)


def test_a_killed_put_goes_on(real_server: KeystowServer, real_keystow: Command, tenant: str) -> None:
    """More than once, each time with the byte that is not persisted; in the end nothing is left but the object."""
    port = port_of(real_server)
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    killed_after(port, real_keystow, 12 * MIB, 8 * MIB, *put)
    [state] = states(real_keystow)
    assert (state.stat().st_mode & 0o777, state.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    first = persisted(real_keystow)
    killed_after(port, real_keystow, 12 * MIB, first + 8 * MIB, *put)
    second = persisted(real_keystow)
    with Relay(port) as relay:
        result = Command(relay.address, real_keystow.directory)(*put)
        assert (result.code, result.lines) == (0, [f"{tenant}:k"])
        assert f"going on after {second // MIB}.0 MiB" in result.err
        assert len(DATA) - second < relay.passed["sent"] < len(DATA) - second + MIB
    assert content_of(real_server, tenant, "k") == DATA
    assert names(real_keystow.state_home / "keystow" / "uploads") == []
    assert names(real_keystow.directory) == ["file"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_put_goes_on(
    real_server: KeystowServer, real_keystow: Command, tenant: str, number: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM leave the upload to the next process."""
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    with held_after(port_of(real_server), real_keystow, 12 * MIB, 8 * MIB, *put) as process:
        process.send_signal(number)
        assert process.communicate() == (b"", b"")
        assert process.returncode == code
    result = real_keystow.in_process(*put)
    assert result.code == 0
    assert "going on after" in result.err
    assert content_of(real_server, tenant, "k") == DATA


def test_what_has_changed_is_not_continued(real_server: KeystowServer, real_keystow: Command, tenant: str) -> None:
    """Another size, time, content or option is refused in words; what is as it was goes on."""
    file = real_keystow.directory / "file"
    file.write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    killed_after(port_of(real_server), real_keystow, 12 * MIB, 8 * MIB, *put)
    [state] = states(real_keystow)

    def refused(*options: str) -> str:
        result = real_keystow.in_process(*put, *options)
        assert (result.code, result.lines) == (4, [])
        assert str(state) in result.err
        return result.err

    was = file.stat()
    assert "other options" in refused("--content-type", "a/b")
    assert "other options" in refused("--overwrite")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    assert "has changed" in refused()
    with file.open("ab") as longer:
        longer.write(b"?")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert "has changed" in refused()
    os.truncate(file, len(DATA))
    with file.open("r+b") as altered:
        altered.write(b"?")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    result = real_keystow.in_process(*put)  # which no stat tells, but the bytes do
    assert result.code == 1
    assert "are not those that were uploaded" in result.err
    assert str(state) in result.err
    file.write_bytes(DATA)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert "going on after" in real_keystow.in_process(*put).err
    assert content_of(real_server, tenant, "k") == DATA


def test_without_its_state_an_upload_is_new(real_server: KeystowServer, real_keystow: Command, tenant: str) -> None:
    """Removing the file, as the messages say, begins anew; another object or source has a state of its own."""
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    killed_after(port_of(real_server), real_keystow, 12 * MIB, 8 * MIB, *put)
    [state] = states(real_keystow)
    assert "going on" not in real_keystow.in_process("put", "--resume", "file", f"{tenant}:other").err
    assert states(real_keystow) == [state]
    state.write_bytes(b"{}")
    result = real_keystow.in_process(*put)
    assert result.code == 4
    assert f"{state} cannot be read" in result.err
    state.unlink()
    result = real_keystow.in_process(*put)
    assert (result.code, result.err) == (0, "")
    assert states(real_keystow) == []


def test_two_processes_do_not_share_an_upload(real_server: KeystowServer, real_keystow: Command, tenant: str) -> None:
    """The second one is told, and takes nothing away from the first."""
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    with held_after(port_of(real_server), real_keystow, 12 * MIB, 8 * MIB, *put):
        result = real_keystow.in_process(*put)
        assert result.code == 4
        assert "another process" in result.err
    assert "going on after" in real_keystow.in_process(*put).err


def test_whoever_was_turned_away_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first progress, too, an upload is its process's until that is done with it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "file").write_bytes(b"data")
    first, *others = [UnfinishedUpload(tmp_path / "file", ObjectAddress("acme", "k"), {}) for _ in range(3)]
    first.load()
    for other in others:
        with pytest.raises(StateError, match="another process"):
            other.load()
        other.close()
    first.close()
    others[0].load()
    others[0].close()
    assert names(first.path.parent) == []


def test_small_files_leave_no_state(keystow: Command, server: ScriptedServer) -> None:
    """What fits into one message has nothing to go on with."""
    (keystow.directory / "file").write_bytes(b"data")
    assert keystow.in_process("put", "--resume", "file", "acme:").lines == ["acme:file"]
    assert server.storage.objects["acme", "file"].data == b"data"
    assert names(keystow.state_home / "keystow" / "uploads") == []


class _GoneError(Exception):
    """The scripted end of a stream."""


def broken(server: ScriptedServer) -> Any:
    """A Put that takes a header and four chunks, and ends well, so that nothing the server said is lost."""

    class Cut:
        def __init__(self, context: Context) -> None:
            self._context = context
            self._left = 5
            self.write = context.write
            self.abort = context.abort

        async def read(self) -> Any:
            if not self._left:
                raise _GoneError
            self._left -= 1
            return await self._context.read()

    async def step(_: Any, context: Context) -> None:
        with suppress(_GoneError):
            await server.storage.put(None, Cut(context))  # type: ignore[arg-type]  # what the handler uses of it

    return step


@pytest.fixture
def unfinished(keystow: Command, server: ScriptedServer) -> tuple[str, ...]:
    """A put whose stream has ended in its middle, with three parts of a MiB each on the safe side."""
    (keystow.directory / "file").write_bytes(noise(6 * MIB))
    put = ("put", "--resume", "file", "acme:k")
    server.storage.next("Put", broken(server))
    assert keystow.in_process(*put, "--retry-for", "0").code == 8
    assert persisted(keystow) == 3 * MIB
    return put


def test_a_failure_that_passes_keeps_the_upload(
    keystow: Command, server: ScriptedServer, unfinished: tuple[str, ...]
) -> None:
    """Once the service can be reached, or the key used again, a further command goes on."""
    server.storage.next("Put", fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"))
    assert keystow.in_process(*unfinished).code == 6
    server.storage.requests.clear()
    assert keystow.in_process(*unfinished).code == 0
    assert server.storage.requests["chunk"][0][0] == 3 * MIB
    assert server.storage.objects["acme", "k"].data == noise(6 * MIB)


def test_an_expired_upload_begins_anew_and_says_so(
    keystow: Command, server: ScriptedServer, unfinished: tuple[str, ...]
) -> None:
    """Nobody waits for what is gone."""
    server.storage.next("Put", fail(Code.ABORTED, "UPLOAD_EXPIRED", "restart"))
    result = keystow.in_process(*unfinished)
    assert result.code == 0
    assert "UPLOAD_EXPIRED" in result.err
    assert server.storage.objects["acme", "k"].data == noise(6 * MIB)
    assert states(keystow) == []


def test_an_upload_that_another_process_goes_on_with_is_its(
    keystow: Command, server: ScriptedServer, unfinished: tuple[str, ...]
) -> None:
    """This one ends, takes nothing away from it, and says how to begin anew: for people, and for programs."""
    [state] = states(keystow)
    for option in ((), ("--json",)):
        server.storage.next("Put", fail(Code.ABORTED, "UPLOAD_SUPERSEDED", "none"))
        result = keystow.in_process(*unfinished, *option)
        assert result.code == 4
        assert "UPLOAD_SUPERSEDED" in result.err
        assert f"remove {state} to begin anew" in result.err
        assert states(keystow) == [state]
    assert result.failures[0]["notes"]
    assert not server.storage.requests["AbortPut"]


def test_an_upload_that_was_lost_to_another_process_can_begin_anew(
    real_server: KeystowServer, real_keystow: Command, tenant: str
) -> None:
    """As from a machine that has another copy of the state: only what the message advises helps."""
    port = port_of(real_server)
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    killed_after(port, real_keystow, 12 * MIB, 8 * MIB, *put)
    [state] = states(real_keystow)
    copy = state.read_bytes()
    furthest = persisted(real_keystow) + 8 * MIB
    killed_after(port, real_keystow, 12 * MIB, furthest, *put)
    ours = state.read_bytes()
    state.write_bytes(copy)
    killed_after(port, real_keystow, 12 * MIB, furthest, *put)
    state.write_bytes(ours)
    for _ in range(2):
        result = real_keystow.in_process(*put)
        assert result.code == 4
        assert "UPLOAD_SUPERSEDED" in result.err
        assert f"remove {state} to begin anew" in result.err
    state.unlink()
    assert real_keystow.in_process(*put).code == 0
    assert content_of(real_server, tenant, "k") == DATA
    assert states(real_keystow) == []


def test_another_servers_upload_is_not_forgotten(
    real_server: KeystowServer, real_keystow: Command, tenant: str, tmp_path: Path
) -> None:
    """A command that was given the wrong server says so, and does not begin anew there."""
    (real_keystow.directory / "file").write_bytes(DATA)
    put = ("put", "--resume", "file", f"{tenant}:k")
    killed_after(port_of(real_server), real_keystow, 12 * MIB, 8 * MIB, *put)
    [state] = states(real_keystow)
    kept = state.read_bytes()
    with keystow_server(tmp_path / "another") as another:
        with Client(another.address) as client:
            client.register_tenant(
                tenant, data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True
            )
        result = Command(another.address, real_keystow.directory).in_process(*put)
        assert (result.code, result.lines) == (2, [])
        assert "RESUME_TOKEN_INVALID" in result.err
        assert "another server" in result.err
        assert f"remove {state} to begin anew here" in result.err
        with Client(another.address) as client:
            assert list(client.list(tenant)) == []
    assert state.read_bytes() == kept
    assert "going on after" in real_keystow.in_process(*put).err
    assert content_of(real_server, tenant, "k") == DATA


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.ALREADY_EXISTS, "OBJECT_EXISTS"),
        (Code.ALREADY_EXISTS, "UPLOAD_ID_REUSED"),
        (Code.FAILED_PRECONDITION, "VERSION_MISMATCH"),
        (Code.FAILED_PRECONDITION, "UPLOAD_REPLACED"),
    ],
)
def test_an_upload_that_cannot_be_stored_any_more_is_discarded(
    keystow: Command, server: ScriptedServer, unfinished: tuple[str, ...], code: Code, reason: str
) -> None:
    """Here and at the service: somebody else has stored the object."""
    server.storage.next("Put", fail(code, reason, "none"))
    result = keystow.in_process(*unfinished)
    assert result.code == 4
    assert states(keystow) == []
    assert server.storage.uploads == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "--resume", "a", "b", "acme:"),
        ("put", "--resume", "-r", "a", "acme:"),
        ("put", "--resume", "-", "acme:k"),
        ("put", "--resume", "--verify-sha256", "a", "acme:k"),
    ],
)
def test_usage_is_explained(keystow: Command, server: ScriptedServer, arguments: tuple[str, ...]) -> None:
    """--resume is for one file."""
    result = keystow.in_process(*arguments)
    assert result.code == 2
    assert "--resume is for one file" in result.err
    assert not any(server.storage.requests.values())


def test_a_state_that_cannot_be_kept_is_told(keystow: Command, server: ScriptedServer) -> None:
    """Before anything is sent."""
    (keystow.directory / "file").write_bytes(noise(6 * MIB))
    keystow.state_home.write_bytes(b"in the way")
    result = keystow.in_process("put", "--resume", "file", "acme:k")
    assert result.code == 1
    assert f"Not a directory: {keystow.state_home}" in result.err
    assert not server.storage.requests["Put"]
