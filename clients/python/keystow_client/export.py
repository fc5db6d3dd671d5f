"""Many objects' way from the service as one archive: continued where it breaks, and never joined wrongly.

A stream that breaks is replaced by one that goes on from the last checkpoint; without one, and for zip, by one from the
beginning. What can be cut is cut to that place, a path or a seekable file; the others see each byte once (joining.py).
Entries are told with the checkpoint or summary that covers them, so that none is told twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from keystow.v1.storage_pb2 import ExportRequest
from keystow_client.errors import KeystowError
from keystow_client.export_models import ExportCheckpoint, ExportEntry, ExportSummary
from keystow_client.export_stream import ExportPiece, ExportStream
from keystow_client.joining import Start, joined
from keystow_client.put_stream import Progress
from keystow_client.retry import FROM_THE_START, Patience, Retries
from keystow_client.sinks import Sink
from keystow_client.threads import TransferThread

if TYPE_CHECKING:
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub  # exists only in the stubs

EntryListener = Callable[[ExportEntry], object]
CheckpointListener = Callable[[ExportCheckpoint], object]


class Exporting:
    """One archive over as many streams as it takes. ``checkpoint`` is where the next one would go on."""

    def __init__(
        self,
        stub: "StorageServiceAsyncStub",
        request: ExportRequest,
        start: ExportCheckpoint,
        retries: Retries,
        stall_timeout: float,
    ) -> None:
        """Nothing is asked for yet."""
        self.checkpoint = start
        self._stub = stub
        self._request = ExportRequest()
        self._request.CopyFrom(request)
        self._retries = retries
        self._stall_timeout = stall_timeout

    async def pieces(self) -> AsyncGenerator[Start | ExportPiece, None]:
        """A Start before each stream, and what the stream gives; the summary last."""
        furthest = self.checkpoint.archive_size
        while True:
            position = self.checkpoint.archive_size
            yield Start(position)
            try:
                async with aclosing(self._stream().pieces()) as pieces:
                    async for piece in pieces:
                        match piece:
                            case bytes():
                                position += len(piece)
                                furthest = max(furthest, position)
                            case ExportCheckpoint():
                                self.checkpoint = piece
                        yield piece
            except KeystowError as error:
                # The service would refuse the token again.
                helps = error.recovery in FROM_THE_START and error.reason != "CHECKPOINT_TOKEN_INVALID"
                await self._retries.pause(error, helps=helps, position=furthest)
            else:
                return

    def _stream(self) -> ExportStream:
        self._request.checkpoint_token = self.checkpoint.checkpoint_token
        return ExportStream(self._stub.Export(self._request), self._request, self.checkpoint, self._stall_timeout)


class AsyncExport:
    """The bytes of one archive, as an async iterator of pieces of at most 2 MiB.

    Use it as an async context manager, or read it to its end. A broken connection is replaced, and the bytes go on
    where they ended, if they can (AbortedError if not). ``summary`` is there once the iterator has ended, and never
    before the archive is whole; ``checkpoint`` is the last one whose bytes were all handed out, to be given as
    ``resume_from``.
    """

    def __init__(self, exporting: Exporting, on_entry: EntryListener) -> None:
        """Made by the client. Nothing is asked for before the first bytes are."""
        self.summary: ExportSummary | None = None
        self._on_entry = on_entry
        self._exporting = exporting
        self._content = self._bytes()

    @property
    def checkpoint(self) -> ExportCheckpoint:
        """See the class. Without one the beginning, or what ``resume_from`` said."""
        return self._exporting.checkpoint

    async def _bytes(self) -> AsyncGenerator[bytes, None]:
        start = self._exporting.checkpoint.archive_size
        async with aclosing(joined(self._exporting.pieces(), start)) as pieces:
            async for piece in pieces:
                match piece:
                    case bytes():
                        yield piece
                    case tuple():
                        for entry in piece:
                            self._on_entry(entry)
                    case ExportSummary():
                        self.summary = piece

    def __aiter__(self) -> Self:
        """Itself: the bytes come once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes. Raises KeystowError; StopAsyncIteration only once everything is verified."""
        return await anext(self._content)

    async def aclose(self) -> None:
        """End the call, whatever is left of it."""
        await self._content.aclose()

    async def __aenter__(self) -> Self:
        """Nothing to do yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """See aclose."""
        await self.aclose()


@dataclass(frozen=True, slots=True)
class ExportListeners:
    """Who hears of an export that is written. ``checkpoint`` is called in the transfer's thread, the others are not."""

    entry: EntryListener
    checkpoint: CheckpointListener
    progress: Progress


@dataclass(frozen=True, slots=True)
class Exporter:
    """How archives are exported: over which stub, how persistently, how many seconds of silence are believed."""

    stub: "StorageServiceAsyncStub"
    retry: Patience
    stall_timeout: float

    def begin(self, request: ExportRequest, start: ExportCheckpoint) -> Exporting:
        """The archive from ``start`` on."""
        return Exporting(self.stub, request, start, Retries(self.retry), self.stall_timeout)

    async def write(
        self,
        exporting: Exporting,
        sink: Sink,
        listeners: ExportListeners,
        thread: TransferThread,
    ) -> ExportSummary:
        """Write the archive to the sink. Raises KeystowError, and what the sink and the listeners raise.

        Checkpoints are heard between the last byte that they cover and the first that they do not. ``progress`` hears
        the archive's bytes so far, after an interruption from the checkpoint.
        """
        summary: ExportSummary  # the last piece
        position = exporting.checkpoint.archive_size
        pieces: AsyncGenerator[Start | ExportPiece, None] = exporting.pieces()
        if sink.rewrites_in_place:
            pieces = joined(pieces, position)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    match piece:
                        case Start():
                            position = piece.position
                            await thread.run(partial(sink.start, position))
                        case bytes():
                            await thread.run(partial(sink.write, piece))
                            position += len(piece)
                            listeners.progress(position)
                        case tuple():
                            for entry in piece:
                                listeners.entry(entry)
                        case ExportCheckpoint():
                            await thread.run(partial(listeners.checkpoint, piece))
                        case ExportSummary():
                            summary = piece
            await thread.run(sink.commit)
        except BaseException:
            await asyncio.shield(thread.run(sink.discard))
            raise
        return summary
