"""The bytes of a Get or an Export, for whoever iterates over the synchronous client's answers."""

from collections import deque
from collections.abc import Callable
from typing import Self

from keystow_client.export import AsyncExport, EntryListener
from keystow_client.export_models import ExportCheckpoint, ExportEntry, ExportSummary
from keystow_client.get import AsyncDownload
from keystow_client.loop_thread import LoopThread
from keystow_client.threads import TransferThread


class Download:
    """The bytes of one Get, as an iterator of verified chunks of at most 2 MiB.

    Use it as a context manager, or read it to its end. ``info`` describes the object; ``offset`` and ``length`` are the
    range served, after clipping to the object.
    """

    def __init__(self, download: AsyncDownload, loop: LoopThread) -> None:
        """Made by the client."""
        self.info = download.info
        self.offset = download.offset
        self.length = download.length
        self._download = download
        self._loop = loop

    def __iter__(self) -> Self:
        """Itself: the bytes come once."""
        return self

    def __next__(self) -> bytes:
        """The next bytes. Raises KeystowError; StopIteration only once everything is verified."""
        data = self._loop.call(self._next)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """End the call, whatever is left of it."""
        self._loop.call(lambda _: self._download.aclose())

    def __enter__(self) -> Self:
        """The call is running already."""
        return self

    def __exit__(self, *_: object) -> None:
        """See close."""
        self.close()

    async def _next(self, _: TransferThread) -> bytes:
        return await anext(self._download, b"")


class Export:
    """The bytes of one archive, as an iterator of pieces of at most 2 MiB.

    Use it as a context manager, or read it to its end. See AsyncExport for more.
    """

    def __init__(
        self, begin: Callable[[EntryListener], AsyncExport], on_entry: EntryListener | None, loop: LoopThread
    ) -> None:
        """Made by the client."""
        self._entries: deque[ExportEntry] = deque()
        self._export = begin(self._entries.append)
        self._on_entry = on_entry
        self._loop = loop

    @property
    def summary(self) -> ExportSummary | None:
        """There once the iterator has ended, and never before the archive is whole."""
        return self._export.summary

    @property
    def checkpoint(self) -> ExportCheckpoint:
        """The last one whose bytes were all handed out, to be given as ``resume_from``."""
        return self._export.checkpoint

    def __iter__(self) -> Self:
        """Itself: the bytes come once."""
        return self

    def __next__(self) -> bytes:
        """The next bytes. Raises KeystowError; StopIteration only once everything is verified."""
        try:
            data = self._loop.call(self._next)
        finally:
            self._tell_entries()
        if not data:
            raise StopIteration
        return data

    def _tell_entries(self) -> None:
        while self._entries:
            entry = self._entries.popleft()
            if self._on_entry is not None:
                self._on_entry(entry)

    def close(self) -> None:
        """End the call, whatever is left of it."""
        self._loop.call(lambda _: self._export.aclose())

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """See close."""
        self.close()

    async def _next(self, _: TransferThread) -> bytes:
        return await anext(self._export, b"")
