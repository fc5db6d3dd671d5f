"""A local store in a directory of its own, whose threads can be held up, seen through its files."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from contract.store_place import StoreProfile
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.local_store import open_local_store
from keystow_service.adapters.local_store.files import StoreFiles
from keystow_service.adapters.local_store.resumable import ResumableFiles
from keystow_service.adapters.local_store.store import LocalStore
from keystow_service.adapters.local_store.threads import Threads
from keystow_service.ports import ObjectStore
from servers.gate import Gate

_PARTS_IN_FLIGHT = 3


class GatedThreads(ThreadPoolExecutor):
    """Threads at whose gate some jobs wait: those with a number among ``held``, counted from the gate's setting on."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._gate: Gate | None = None
        self._held = range(0)
        self._jobs = 0
        self._futures: list[Future[Any]] = []

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
            return self._submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()

        def held() -> Any:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return fn(*args, **kwargs)

        return self._submit(held)

    async def settled(self) -> None:
        """Return once all jobs so far are done."""
        await asyncio.to_thread(wait, list(self._futures))

    def _submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self._futures.append(super().submit(fn, *args, **kwargs))
        return self._futures[-1]


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
        resumable = ResumableFiles(files, SystemClock())
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

    async def settled(self) -> None:
        """In its threads."""
        await self._threads.settled()

    def another(self) -> AbstractAsyncContextManager[ObjectStore]:
        """With threads of its own."""
        return open_local_store(self.root, parts_in_flight=_PARTS_IN_FLIGHT)

    def backdate(self, upload_id: str, begun: datetime) -> None:
        """In its journal: the seconds that follow the owner's 16 bytes."""
        with (self.root / ".keystow" / "resumable" / f"{upload_id}.parts").open("r+b") as journal:
            journal.seek(16)
            journal.write(int(begun.timestamp()).to_bytes(8, "big"))

    def hold_beginning(self) -> Gate:
        """The next job makes the upload's files."""
        return self._threads.hold(range(1))


@asynccontextmanager
async def local_place(root: Path) -> AsyncIterator[LocalPlace]:
    """An empty store."""
    threads = GatedThreads(8)
    yield LocalPlace(root, threads)
    threads.release()
    await asyncio.to_thread(threads.shutdown)
