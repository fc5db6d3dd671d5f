"""What the local store promises beyond the contract: a disk that survives crashes, other processes and bad names."""

import asyncio
import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from contract.store_place import NAME
from keystow_service.adapters.local_store import LocalStore, open_local_store
from keystow_service.adapters.local_store.threads import store_error
from keystow_service.errors import (
    KeystowError,
    ObjectChangedError,
    StoreFullError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from keystow_service.ports import Absent, ConditionFailed, Matches
from servers.small_disk import small_disk

_PART = 64 * 1024

# A process of its own, which does what its arguments say, at the word "go".
_OTHER_PROCESS = """
import asyncio, resource, signal, sys
from pathlib import Path
from keystow_service.adapters.local_store import open_local_store
from keystow_service.errors import KeystowError
from keystow_service.ports import Absent, ConditionFailed, Matches

async def main(root, task, *arguments):
    async with open_local_store(Path(root)) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        match task:
            case "race":
                for name in arguments:
                    try:
                        await store.begin(name, Absent()).commit(bytearray(b"x"))
                    except ConditionFailed:
                        print("lost")
                    else:
                        print("won")
            case "outgrow":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
                await fill(store, arguments[0])
            case "fill":
                await fill(store, arguments[0])
            case "outgrow-journal":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(arguments[1]), resource.RLIM_INFINITY))
                await write_resumable(store, arguments[0])
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                await write_resumable(store, arguments[0])

async def write_resumable(store, name):
    try:
        upload = await store.begin_resumable(name, Absent(), lambda number, *_: number == 3 and print("durable"))
        print("begun")
        for _ in range(3):
            await upload.write(bytearray(b"x"))
        await upload.commit(bytearray(b"x"))
        print("stored")
    except KeystowError as error:
        print(type(error).__name__)

async def fill(store, name):
    old = await store.begin(name, Absent()).commit(bytearray(b"old"))
    upload = store.begin(name, Matches(old.etag))
    try:
        for _ in range(80):
            await upload.write(bytearray(100_000))
        await upload.commit(bytearray(b"new"))
    except KeystowError as error:
        print(type(error).__name__)
    await upload.abort()
    print((await store.read(name, 0, 10)).data)
    await store.begin("objects/acme/_next!", Absent()).commit(bytearray(b"room again"))
    print("stored")

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def other_process(*arguments: str, inside: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    """A process that has opened the store and waits; it is gone afterwards."""
    command = [*inside, sys.executable, "-c", _OTHER_PROCESS, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go(process: "subprocess.Popen[str]") -> None:
    """Let it do its task."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def entries(directory: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in directory.iterdir())


async def put(store: LocalStore, name: str, data: bytes = b"x") -> str:
    """Store a small object; its ETag."""
    return (await store.begin(name, Absent()).commit(bytearray(data))).etag


# --- Crashes and other processes --------------------------------------------------------------------------------------


async def test_objects_outlive_the_store(tmp_path: Path) -> None:
    """What was committed is there when the directory is opened again, with the same ETag."""
    root = tmp_path / "deep" / "store"
    async with open_local_store(root) as store:
        etag = await put(store, NAME, b"data")
    async with open_local_store(root) as store:
        assert (await store.read(NAME, 0, 10, etag=etag)).data == b"data"
        assert [stored.etag for stored in await store.list("", limit=2)] == [etag]


async def test_only_the_owner_can_read(tmp_path: Path) -> None:
    """Files are the service's alone, and so are directories."""
    root = tmp_path / "store"
    async with open_local_store(root) as store:
        await put(store, NAME)
        for path in [root, *root.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_processes_race(tmp_path: Path) -> None:
    """Of several processes that create the same objects at once, exactly one creates each."""
    names = [f"objects/acme/_{number}/_{number}!" for number in range(50)]
    with ExitStack() as stack:
        processes = [stack.enter_context(other_process(str(tmp_path), "race", *names)) for _ in range(3)]
        for process in processes:
            go(process)
        outcomes = [process.communicate()[0].split() for process in processes]
    for rivals in zip(*outcomes, strict=True):
        assert sorted(rivals) == ["lost", "lost", "won"]


async def test_no_update_is_lost(tmp_path: Path) -> None:
    """Writers that each replace what they have read never replace what another has written meanwhile."""
    async with open_local_store(tmp_path) as store:
        await put(store, NAME, b"0")

        async def count() -> int:
            counted = 0
            for _ in range(60):
                read = await store.read(NAME, 0, 100)
                next_number = bytearray(b"%d" % (int(read.data) + 1))
                upload = store.begin(NAME, Matches(read.object.etag))
                with suppress(ConditionFailed):
                    await upload.commit(next_number)
                    counted += 1
                await upload.abort()
            return counted

        counted = await asyncio.gather(*(count() for _ in range(8)))
        assert int((await store.read(NAME, 0, 100)).data) == sum(counted)


async def test_directories_come_and_go(tmp_path: Path) -> None:
    """Deletes remove empty directories while other objects are created in them; no Put fails, and none is lost."""
    async with open_local_store(tmp_path) as store:

        async def come_and_go(who: int) -> None:
            for turn in range(30):
                name = f"objects/acme/_a/_b/_c/_{who}-{turn}!"
                etag = await put(store, name)
                assert (await store.head(name)).etag == etag
                await store.delete(name, etag=etag)

        await asyncio.gather(*(come_and_go(who) for who in range(8)))
        assert entries(tmp_path) == [".keystow"]


async def test_every_step_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are synced before they get their name, the name's directory after it, and each new directory's parent."""
    steps: list[tuple[str, Path]] = []
    with _watched(tmp_path, steps, monkeypatch):
        async with open_local_store(tmp_path) as store:
            steps.clear()
            etag = await put(store, "objects/acme/_a!")
            (bytes_synced, temp), *named = steps
            assert (bytes_synced, temp.parent.name) == ("fsync", "uploads")
            assert named == [
                ("rename", tmp_path / "objects" / "acme" / "_a!"),  # in vain
                ("mkdir", tmp_path / "objects"),
                ("fsync", tmp_path),
                ("mkdir", tmp_path / "objects" / "acme"),
                ("fsync", tmp_path / "objects"),
                ("rename", tmp_path / "objects" / "acme" / "_a!"),
                ("fsync", tmp_path / "objects" / "acme"),
                ("remove", temp),  # in vain
            ]
            steps.clear()
            etag = (await store.begin("objects/acme/_a!", Matches(etag)).commit(bytearray(b"y"))).etag
            (bytes_synced, temp), *named = steps
            assert (bytes_synced, temp.parent.name) == ("fsync", "uploads")
            assert named == [
                ("rename", tmp_path / "objects" / "acme" / "_a!"),
                ("fsync", tmp_path / "objects" / "acme"),
                ("remove", temp),  # in vain
            ]
            steps.clear()
            await store.delete("objects/acme/_a!", etag=etag)
            assert [what for what, _ in steps] == ["remove", "fsync", "rmdir", "rmdir"]


# --- Bad disks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["outgrow", "fill"])
async def test_full_disk(tmp_path: Path, task: str) -> None:
    """Without room the old version stays, nothing is left, and the next object that fits is stored.

    The limit on file sizes can be set anywhere; a small disk needs a user namespace.
    """
    inside = small_disk(tmp_path) if task == "fill" else ()
    with other_process(str(tmp_path), task, NAME, inside=inside) as process:
        go(process)
        told = process.communicate()[0].splitlines()
    assert told == ["StoreFullError", "b'old'", "stored"]


@pytest.mark.parametrize(
    ("room", "refused"),
    [(1000, ["StoreFullError"]), (1100, ["begun", "StoreFullError"])],
    ids=["beginning", "part"],
)
async def test_full_disk_under_a_journal(tmp_path: Path, room: int, refused: list[str]) -> None:
    """What the system takes only a part of, a journal's beginning or its entry of a part, does not pass for durable.

    A journal begins with 1,048 bytes and has 24 for each part. The parts here have one byte, and the last is the third.
    """
    with other_process(str(tmp_path), "outgrow-journal", NAME, str(room)) as process:
        go(process)
        told = process.communicate()[0].splitlines()
    assert told == [*refused, "begun", "durable", "stored"]


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EIO, StoreUnavailableError),
        (errno.EMFILE, StoreUnavailableError),
        (errno.EACCES, StoreMisconfiguredError),
        (errno.EROFS, StoreMisconfiguredError),
    ],
)
def test_disk_errors(code: int, raised: type[KeystowError]) -> None:
    """The system's refusals become our errors, by name and without paths."""
    error = store_error(OSError(code, "foreign text", "/secret/path"))
    assert type(error) is raised
    assert "foreign" not in error.message
    assert "secret" not in error.message


async def test_disk_that_is_gone(tmp_path: Path) -> None:
    """A root that has vanished is a misconfigured store, never a missing object."""
    root = tmp_path / "store"
    async with open_local_store(root) as store:
        await put(store, NAME)
        root.rename(tmp_path / "elsewhere")
        for call in (
            store.head(NAME),
            store.read(NAME, 0, 1),
            store.list("", limit=1),
            store.delete(NAME),
            store.begin(NAME, Absent()).commit(bytearray(b"x")),
        ):
            with pytest.raises(StoreMisconfiguredError):
                await call


async def test_flipped_byte_is_another_content(tmp_path: Path) -> None:
    """A file that is written to behind the store's back has another ETag."""
    async with open_local_store(tmp_path) as store:
        etag = await put(store, NAME, b"data")
        with (tmp_path / NAME).open("r+b") as file:
            file.write(b"D")
        assert (await store.head(NAME)).etag != etag
        with pytest.raises(ObjectChangedError):
            await store.read(NAME, 0, 4, etag=etag)
        assert (await store.read(NAME, 0, 4)).data == b"Data"


async def test_time_is_that_of_the_commit(tmp_path: Path) -> None:
    """A content's time is its commit's, to the nanosecond and not to a tick of the kernel: inodes are used again."""
    async with open_local_store(tmp_path) as store:
        upload = store.begin(NAME, Absent())
        await upload.write(bytearray(1))
        before = time.time_ns()
        await upload.commit(bytearray())
        assert before <= (tmp_path / NAME).stat().st_mtime_ns <= time.time_ns()


# --- Watching what the store asks of the system -----------------------------------------------------------------------

_WATCHED: Mapping[str, int] = {"os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0}


@contextmanager
def _watched(root: Path, steps: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note what happens to files below ``root``: the real calls, by Python's audit events and around fsync."""
    sync = os.fsync
    noting = threading.Event()
    noting.set()

    def note(what: str, path: Path) -> None:
        if noting.is_set() and path.is_relative_to(root) and "locks" not in path.parts:
            steps.append((what, path))

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        note("fsync", _opened(descriptor))

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if (position := _WATCHED.get(event)) is not None:
            path = Path(str(arguments[position]))
            if event == "os.remove" and isinstance(arguments[1], int) and arguments[1] >= 0:
                path = _opened(arguments[1]) / path
            note(event.removeprefix("os."), path)

    monkeypatch.setattr(os, "fsync", noted_sync)
    sys.addaudithook(hear)
    try:
        yield
    finally:
        noting.clear()  # a hook cannot be removed


def _opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()
