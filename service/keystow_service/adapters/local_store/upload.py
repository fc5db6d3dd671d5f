"""One object on its way to the disk: parts written side by side into a temp file, then made visible at once."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from keystow_service.adapters.in_flight import InFlight
from keystow_service.adapters.local_store.files import StoreFiles, TempFile, write_all
from keystow_service.adapters.local_store.threads import Threads
from keystow_service.errors import KeystowError
from keystow_service.ports import Permit, StoredObject, WriteCondition, always

T = TypeVar("T")


class LocalUpload:
    """An Upload. Its work goes on in threads when its caller is cancelled; abort waits for that, then cleans up."""

    def __init__(
        self, files: StoreFiles, threads: Threads, name: str, condition: WriteCondition, parts_in_flight: int
    ) -> None:
        self._files = files
        self._threads = threads
        self._name = name
        self._condition = condition
        self._in_flight = InFlight(parts_in_flight)
        self._job: asyncio.Future[Any] | None = None
        self._temp: TempFile | None = None
        self._parts = 0
        self._size = 0
        self._failure: KeystowError | None = None
        self._aborted = False

    async def write(self, part: bytearray) -> None:
        """See the port."""
        if self._temp is None:
            await self._run(self._open)
        self._in_flight.add(self._parts, self._threads.start(partial(self._write, self._size, part)), len(part))
        self._parts += 1
        self._size += len(part)
        del part  # the thread's alone, which lets it go when it is written
        await self._in_flight.room()

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        """See the port. A failed sync is never tried again: the kernel may have dropped what it could not write."""
        await self._in_flight.settled()
        if self._failure is not None:
            raise self._failure
        await permit()
        try:
            return await self._run(partial(self._publish, last))
        except KeystowError as failure:
            self._failure = failure
            raise

    async def abort(self) -> None:
        """See the port."""
        self._aborted = True
        await self._in_flight.ended()
        if self._job is not None:
            await asyncio.wait([self._job])
        await self._run(self._close)

    async def _run(self, work: Callable[[], T]) -> T:
        """One job at a time, beside the parts. Cancelling the caller leaves it running."""
        job = self._threads.start(work)
        self._job = job
        return await asyncio.shield(job)

    def _open(self) -> TempFile:
        if self._temp is None:
            self._temp = self._files.create_temp()
        return self._temp

    def _write(self, offset: int, part: bytearray) -> None:
        if self._temp is not None and not self._aborted:
            write_all(self._temp.descriptor, offset, part)

    def _publish(self, last: bytearray) -> StoredObject:
        temp = self._open()
        write_all(temp.descriptor, self._size, last)
        stored = self._files.publish(temp, self._name, self._condition)
        self._close()
        return stored

    def _close(self) -> None:
        temp, self._temp = self._temp, None
        if temp is not None:
            self._files.discard_temp(temp)
