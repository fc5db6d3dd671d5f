"""The ObjectStore port over StoreFiles: what blocks goes to threads."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path

from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.local_store import listing
from keystow_service.adapters.local_store.files import StoreFiles
from keystow_service.adapters.local_store.resumable import ResumableFiles, Writer
from keystow_service.adapters.local_store.resumable_upload import LocalResumableUpload
from keystow_service.adapters.local_store.threads import Threads
from keystow_service.adapters.local_store.upload import LocalUpload
from keystow_service.envelope.part_chain import PartChain
from keystow_service.ports import (
    Clock,
    PartObserver,
    ResumableUpload,
    StoredObject,
    StoredRange,
    UnfinishedUpload,
    Upload,
    WriteCondition,
)


@asynccontextmanager
async def open_local_store(
    root: Path, *, parts_in_flight: int = 4, threads: int = 16, clock: Clock | None = None
) -> AsyncIterator["LocalStore"]:
    """The store below ``root``, which is made if missing; several processes may share it. Raises Store… errors."""
    executor = ThreadPoolExecutor(threads, thread_name_prefix="local-store")
    try:
        files = StoreFiles(root)
        jobs = Threads(executor)
        await jobs.start(files.prepare)
        resumable = ResumableFiles(files, clock or SystemClock())
        await jobs.start(resumable.prepare)
        yield LocalStore(files, resumable, jobs, parts_in_flight)
    finally:
        await asyncio.to_thread(executor.shutdown)


class LocalStore:
    """An ObjectStore. ETags are the files' identities: restoring a copy of the directory gives objects new ones."""

    def __init__(self, files: StoreFiles, resumable: ResumableFiles, threads: Threads, parts_in_flight: int) -> None:
        self._files = files
        self._resumable = resumable
        self._threads = threads
        self._parts_in_flight = parts_in_flight

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        """See the port."""
        return LocalUpload(self._files, self._threads, name, condition, self._parts_in_flight)

    async def begin_resumable(self, name: str, condition: WriteCondition, on_part: PartObserver) -> ResumableUpload:
        """See the port."""
        writer = await self._threads.start(partial(self._resumable.begin, name))
        return self._resumable_upload(writer, name, condition, on_part)

    async def resume(
        self, name: str, condition: WriteCondition, upload_id: str, parts: PartChain, on_part: PartObserver
    ) -> ResumableUpload:
        """See the port."""
        writer = await self._threads.start(partial(self._resumable.take_over, upload_id, parts))
        return self._resumable_upload(writer, name, condition, on_part)

    async def discard(self, name: str, upload_id: str) -> None:  # noqa: ARG002 - S3 needs the name
        """See the port."""
        await self._threads.start(partial(self._discard, upload_id))

    async def unfinished(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        """See the port. Of plain uploads only the files of dead processes are listed; these have no name."""
        for upload in await self._threads.start(partial(self._unfinished, prefix)):
            yield upload

    async def head(self, name: str) -> StoredObject:
        """See the port."""
        return await self._threads.start(partial(self._files.head, name))

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> StoredRange:
        """See the port."""
        return await self._threads.start(partial(self._files.read, name, start, length, etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int) -> Sequence[StoredObject]:
        """See the port."""
        return await self._threads.start(partial(self._list, prefix, start_after, limit))

    async def delete(self, name: str, *, etag: str | None = None) -> None:
        """See the port."""
        await self._threads.start(partial(self._files.delete, name, etag))

    def _resumable_upload(
        self, writer: Writer, name: str, condition: WriteCondition, on_part: PartObserver
    ) -> ResumableUpload:
        return LocalResumableUpload(
            self._resumable, self._threads, writer, name, condition, self._parts_in_flight, on_part
        )

    def _discard(self, upload_id: str) -> None:
        self._resumable.discard(upload_id)
        self._files.remove_orphan(upload_id)

    def _unfinished(self, prefix: str) -> Sequence[UnfinishedUpload]:
        resumable = [upload for upload in self._resumable.unfinished() if upload.name.startswith(prefix)]
        return [*resumable, *self._files.orphans()]

    def _list(self, prefix: str, start_after: str, limit: int) -> Sequence[StoredObject]:
        self._files.check()
        found = listing.names(self._files.root, prefix, start_after, batch=limit + 1)
        standing = (stored for name, path in found if (stored := self._files.stored(name, path)) is not None)
        return list(islice(standing, limit))
