"""A resumable upload on its way to the disk: ResumableFiles in threads, parts side by side."""

import asyncio
from functools import partial

from keystow_service.adapters.in_flight import InFlight
from keystow_service.adapters.local_store.resumable import ResumableFiles, Writer
from keystow_service.adapters.local_store.threads import Threads
from keystow_service.errors import KeystowError
from keystow_service.ports import PartObserver, Permit, StoredObject, WriteCondition, always


class LocalResumableUpload:
    """A ResumableUpload."""

    def __init__(
        self,
        files: ResumableFiles,
        threads: Threads,
        writer: Writer,
        name: str,
        condition: WriteCondition,
        parts_in_flight: int,
        on_part: PartObserver,
    ) -> None:
        self.id = writer.upload_id
        self._files = files
        self._threads = threads
        self._writer = writer
        self._name = name
        self._condition = condition
        self._on_part = on_part
        self._in_flight = InFlight(parts_in_flight)
        self._parts = writer.parts
        self._size = writer.size
        self._publishing: asyncio.Future[StoredObject] | None = None
        self._failure: KeystowError | None = None

    async def write(self, part: bytearray) -> None:
        """See the port."""
        self._parts += 1
        writing = self._threads.start(partial(self._files.write, self._writer, self._parts, self._size, part))
        telling = asyncio.create_task(self._tell(self._parts, len(part), writing))
        self._in_flight.add(self._parts, telling, len(part))
        self._size += len(part)
        del part, writing, telling  # the thread's alone, which lets it go when it is written
        await self._in_flight.room()

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """See the port. A failed sync is never tried again: the kernel may have dropped what it could not write."""
        await self._in_flight.settled()
        if self._failure is not None:
            raise self._failure
        await permit()
        publish = partial(self._files.publish, self._writer, self._size, last, self._name, self._condition)
        self._publishing = self._threads.start(publish)
        try:
            return await asyncio.shield(self._publishing)
        except KeystowError as failure:
            self._failure = failure
            raise

    async def stop(self) -> None:
        """See the port. What is being written ends by itself."""
        await self._in_flight.ended()
        if self._publishing is not None:
            await asyncio.gather(self._publishing, return_exceptions=True)

    async def _tell(self, number: int, size: int, writing: "asyncio.Future[str]") -> None:
        self._on_part(number, await writing, size)
