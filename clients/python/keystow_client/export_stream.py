"""The messages of one Export stream, held to the contract.

A chunk out of place or with another checksum, a checkpoint or summary that does not fit the bytes before it, and a
stream that ends before its summary all raise. Entries are held until a checkpoint or the summary covers them.
"""

from collections.abc import AsyncGenerator
from typing import TypeAlias

import google_crc32c
import grpc.aio

from keystow.v1 import storage_pb2
from keystow.v1.storage_pb2 import ExportRequest, ExportResponse
from keystow_client.channel import translated
from keystow_client.content import checked, corrupt
from keystow_client.errors import IncompleteError, Recovery
from keystow_client.export_models import ExportCheckpoint, ExportEntry, ExportSummary

ExportPiece: TypeAlias = bytes | tuple[ExportEntry, ...] | ExportCheckpoint | ExportSummary

# More than a zip archive has, or come between two checkpoints: those of a tenant none of whose objects can be opened.
_MAX_HELD_ENTRIES = 1 << 16


class ExportStream:
    """One attempt to export, or to export the rest."""

    def __init__(
        self,
        call: "grpc.aio.UnaryStreamCall[ExportRequest, ExportResponse]",
        request: ExportRequest,
        start: ExportCheckpoint,
        stall_timeout: float,
    ) -> None:
        """Takes the call over: it is finished or cancelled when ``pieces`` ends. ``start`` is where it goes on."""
        self._call = call
        self._request = request
        self._position = start.archive_size
        self._whole_crc32c = start.crc32c
        self._stream_crc32c = 0
        self._entries: list[ExportEntry] = []
        self._stall_timeout = stall_timeout

    async def pieces(self) -> AsyncGenerator[ExportPiece, None]:
        """The archive's bytes, never an empty piece; checkpoints; the summary last. Entries before what covers them."""
        try:
            while (response := await self._read()) is not None:
                match response.WhichOneof("message"):
                    case "chunk":
                        if data := checked(response.chunk, self._position):
                            self._add(data, response.chunk)
                            yield data
                    case "entry":
                        self._entries.append(ExportEntry.from_proto(response.entry))
                        if len(self._entries) == _MAX_HELD_ENTRIES:
                            yield self._take_entries()
                    case "checkpoint":
                        checkpoint = self._checkpoint(response.checkpoint)
                        yield self._take_entries()
                        yield checkpoint
                    case "summary":
                        summary = self._summary(response.summary)
                        if await self._read() is not None:
                            raise corrupt("a message after the last one")
                        yield self._take_entries()
                        yield summary
                        return
                    case _:
                        raise corrupt("an unexpected message")
            raise IncompleteError("The stream ended without ExportSummary.", recovery=Recovery.RETRY)
        finally:
            self._call.cancel()

    def _add(self, data: bytes, chunk: storage_pb2.Chunk) -> None:
        if not chunk.HasField("crc32c"):  # and a checkpoint would vouch for it
            raise corrupt("a chunk without a checksum")
        self._position += len(data)
        self._stream_crc32c = google_crc32c.extend(self._stream_crc32c, data)
        self._whole_crc32c = google_crc32c.extend(self._whole_crc32c, data)

    def _take_entries(self) -> tuple[ExportEntry, ...]:
        entries = tuple(self._entries)
        self._entries.clear()
        return entries

    def _checkpoint(self, checkpoint: storage_pb2.ExportCheckpoint) -> ExportCheckpoint:
        if checkpoint.archive_size != self._position or not checkpoint.checkpoint_token:
            raise corrupt("a checkpoint of other bytes")
        return ExportCheckpoint(checkpoint.checkpoint_token, self._position, self._whole_crc32c)

    def _summary(self, summary: storage_pb2.ExportSummary) -> ExportSummary:
        asked_for = len(self._request.keys.keys)
        problems = {
            "fewer or more bytes than it counted": summary.archive_size != self._position,
            "bytes with a wrong checksum": summary.crc32c != self._stream_crc32c,
            "a summary that contradicts itself": summary.complete != (summary.failed_count == 0),
            "fewer or more objects than were asked for": asked_for
            and summary.object_count + summary.failed_count != asked_for,
        }
        for problem, found in problems.items():
            if found:  # and nothing says that it is not before the last checkpoint
                raise corrupt(problem, Recovery.NONE)
        return ExportSummary.from_proto(summary, self._whole_crc32c)

    async def _read(self) -> ExportResponse | None:
        """The next message; None where the stream has ended well."""
        async with translated(self._stall_timeout):
            response = await self._call.read()
        return response if isinstance(response, ExportResponse) else None
