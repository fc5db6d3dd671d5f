"""The local store keeps the object stores' contract."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contract.object_store import ObjectStoreContract
from contract.store_place import NAME, StoreProfile
from keystow_service.adapters.local_store.files import StoreFiles
from keystow_service.adapters.local_store.resumable import ResumableFiles
from keystow_service.adapters.local_store.store import LocalStore
from keystow_service.adapters.local_store.threads import Threads
from keystow_service.ports import Absent, ObjectStore
from servers.gate import Gate

_PARTS_IN_FLIGHT = 3


class GatedThreads(ThreadPoolExecutor):
    """Threads at whose gate some jobs wait: those with a number among ``held``, counted from the gate's setting on."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._gate: Gate | None = None
        self._held = range(0)
        self._jobs = 0

    def hold(self, held: range) -> Gate:
        """Set the gate."""
        self._gate, self._held, self._jobs = Gate(), held, 0
        return self._gate

    def release(self) -> None:
        """Let all jobs go that still wait."""
        if self._gate is not None:
            self._gate.open()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """See Executor."""
        number, self._jobs = self._jobs, self._jobs + 1
        if (gate := self._gate) is None or number not in self._held:
            return super().submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()

        def held() -> Any:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return fn(*args, **kwargs)

        return super().submit(held)


class LocalPlace:
    """A local store in an empty directory, seen through its files."""

    profile = StoreProfile()
    part_size = 64 * 1024
    parts_in_flight = _PARTS_IN_FLIGHT

    def __init__(self, root: Path, threads: GatedThreads) -> None:
        self.root = root
        self._threads = threads
        files = StoreFiles(root)
        files.prepare()
        resumable = ResumableFiles(files)
        resumable.prepare()
        self.store: ObjectStore = LocalStore(files, resumable, Threads(threads), _PARTS_IN_FLIGHT)

    def contents(self) -> dict[str, bytes]:
        """Each file outside of the store's own directory; pieces of long segments joined."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        names = {path: path.relative_to(self.root).as_posix().replace("+/+", "") for path in files}
        return {name: path.read_bytes() for path, name in names.items() if not name.startswith(".keystow/")}

    def unfinished(self) -> Sequence[str]:
        """Files of uploads, and directories without objects."""
        own = self.root / ".keystow"
        uploads = [path.name for path in (*(own / "uploads").iterdir(), *(own / "resumable").iterdir())]
        tree = [path for path in self.root.rglob("*") if ".keystow" not in path.parts]
        return uploads + [str(path) for path in tree if path.is_dir() and not any(path.iterdir())]

    def plant(self, name: str, data: bytes) -> None:
        """A file, made by hand."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def hold_parts(self) -> Gate:
        """The first job opens the upload's file."""
        return self._threads.hold(range(1, 1000))

    def hold_opening(self) -> Gate:
        """Have the opening of the next upload's file wait."""
        return self._threads.hold(range(1))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[LocalPlace]:
    """An empty store."""
    threads = GatedThreads(8)
    yield LocalPlace(tmp_path / "store", threads)
    threads.release()
    await asyncio.to_thread(threads.shutdown)


class TestLocalStore(ObjectStoreContract):
    """All of it."""


async def test_cancelled_while_the_file_is_opened(place: LocalPlace) -> None:
    """A writer that is cancelled while a thread opens its file leaves nothing: the abort waits for that thread."""
    gate = place.hold_opening()
    upload = place.store.begin(NAME, Absent())
    writing = asyncio.create_task(upload.write(bytearray(1)))
    await gate.until(1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    aborting = asyncio.create_task(upload.abort())
    for _ in range(10):
        await place.store.list("", limit=1)  # whatever could go on now, does
    assert not aborting.done()
    gate.open()
    await aborting
    assert place.unfinished() == []


async def test_abort_waits_for_threads_that_write(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not closed under a thread that writes to it: its number might be another file's by then."""
    gate, loop, pwrite = Gate(), asyncio.get_running_loop(), os.pwrite

    def held_pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", held_pwrite)
    upload = place.store.begin(NAME, Absent())
    await upload.write(bytearray(1))
    await gate.until(1)
    aborting = asyncio.create_task(upload.abort())
    for _ in range(10):
        await place.store.list("", limit=1)  # whatever could go on now, does
    unfinished = place.unfinished()
    gate.open()
    await aborting
    assert len(unfinished) == 1
    assert place.unfinished() == []
