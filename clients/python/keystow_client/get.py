"""One object's way from the service: every chunk checked, and nothing called complete that is not.

A chunk out of order or with another checksum, a range or version other than the one asked for, and a stream that ends
before GetFinish all raise. A connection that breaks is replaced, and the rest of the range is asked for, of the same
version. An iterator hands bytes on as they come; whoever must not see any of an incomplete object gets into a path.
"""

import asyncio
from collections.abc import AsyncGenerator, Container
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import google_crc32c
import grpc.aio

from keystow.v1.storage_pb2 import GetHeader, GetRequest, GetResponse
from keystow_client.channel import translated
from keystow_client.content import checked, corrupt
from keystow_client.errors import IncompleteError, KeystowError, Recovery
from keystow_client.models import ObjectInfo
from keystow_client.put_stream import Progress
from keystow_client.retry import FROM_THE_START, GOING_ON, Patience, Retries
from keystow_client.sinks import Sink
from keystow_client.threads import TransferThread

if TYPE_CHECKING:
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub  # exists only in the stubs


class GetStream:
    """The messages of one Get."""

    def __init__(self, call: "grpc.aio.UnaryStreamCall[GetRequest, GetResponse]", stall_timeout: float) -> None:
        """Takes the call over: it must be read to its end or cancelled."""
        self._call = call
        self._stall_timeout = stall_timeout

    async def header(self, request: GetRequest) -> GetHeader:
        """The first message, if it announces what was asked for."""
        response = await self._read()
        if response is None:
            raise IncompleteError("The stream ended without GetHeader.", recovery=Recovery.RETRY)
        if not response.HasField("header"):
            raise corrupt("an unexpected message")
        header = response.header
        size = header.object.size
        offset = request.offset if request.offset >= 0 else max(0, size + request.offset)
        length = min(request.length, size - offset) if request.HasField("length") else size - offset
        if (header.offset, header.length) != (offset, length):
            raise corrupt("another range than the one asked for")
        if request.version_id not in ("", header.object.version_id):
            raise corrupt("another version than the one asked for")
        return header

    async def content(self, header: GetHeader) -> AsyncGenerator[bytes, None]:
        """The bytes after the header, never an empty chunk. Ends only once this stream is whole."""
        position, crc32c = header.offset, 0
        end = header.offset + header.length
        try:
            while (response := await self._read()) is not None and response.HasField("chunk"):
                data = checked(response.chunk, position)
                position += len(data)
                if position > end:
                    raise corrupt("more bytes than it announced")
                crc32c = google_crc32c.extend(crc32c, data)
                if data:
                    yield data
            if response is None:
                raise IncompleteError("The stream ended without GetFinish.", recovery=Recovery.RETRY)
            if not response.HasField("finish"):
                raise corrupt("an unexpected message")
            if position != end:
                raise corrupt("fewer bytes than it announced")
            if response.finish.crc32c != crc32c:
                raise corrupt("bytes with a wrong checksum")
            if await self._read() is not None:
                raise corrupt("a message after the last one")
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End the call, whatever is left of it."""
        self._call.cancel()

    async def _read(self) -> GetResponse | None:
        """The next message; None where the stream has ended well."""
        async with translated(self._stall_timeout):
            response = await self._call.read()
        return response if isinstance(response, GetResponse) else None


class Reading:
    """The bytes of one Get, over as many streams as it takes; all of one version."""

    def __init__(
        self, stub: "StorageServiceAsyncStub", request: GetRequest, retries: Retries, stall_timeout: float
    ) -> None:
        """Nothing is asked for yet. ``position`` counts what was read, from 0 whatever the range."""
        self.position = 0
        self._stub = stub
        self._retries = retries
        self._stall_timeout = stall_timeout
        self._request = GetRequest()
        self._request.CopyFrom(request)
        self._stream: GetStream | None = None

    async def open(self) -> GetHeader:
        """The object and the range. Tried again until it is there, and pins the version for all that follows."""
        header = await self._begin(FROM_THE_START)
        self._request.version_id = header.object.version_id
        return header

    async def content(self, header: GetHeader) -> AsyncGenerator[bytes, None]:
        """The bytes after ``open``; a stream that breaks is continued by another for the rest of the range.

        Ends only once everything is verified: each stream, and the whole if it is the whole object.
        """
        crc32c = 0
        rest = header
        while True:
            try:
                async with aclosing(self._opened.content(rest)) as content:
                    async for data in content:
                        self.position += len(data)
                        crc32c = google_crc32c.extend(crc32c, data)
                        yield data
                break
            except KeystowError as error:
                await self._retries.pause(error, helps=error.recovery in GOING_ON, position=self.position)
            self._request.offset = header.offset + self.position
            if self._request.HasField("length"):
                self._request.length = header.length - self.position
            rest = await self._begin(GOING_ON)
        whole = header.length == header.object.size and header.object.HasField("crc32c")
        if whole and header.object.crc32c != crc32c:
            raise corrupt("bytes with a wrong checksum")

    def cancel(self) -> None:
        """End the call, whatever is left of it."""
        if self._stream is not None:
            self._stream.cancel()

    @property
    def _opened(self) -> GetStream:
        if self._stream is None:
            raise ValueError("open first")
        return self._stream

    async def _begin(self, helpful: Container[Recovery]) -> GetHeader:
        while True:
            self._stream = GetStream(self._stub.Get(self._request), self._stall_timeout)
            try:
                return await self._stream.header(self._request)
            except KeystowError as error:
                self._stream.cancel()
                gone = error.reason == "OBJECT_CHANGED" and self._request.version_id != ""
                await self._retries.pause(error, helps=error.recovery in helpful and not gone, position=self.position)
            except BaseException:
                self._stream.cancel()
                raise


class AsyncDownload:
    """The bytes of one Get, as an async iterator of verified chunks of at most 2 MiB.

    Use it as an async context manager, or read it to its end. ``info`` describes the object; ``offset`` and ``length``
    are the range served, after clipping to the object. A broken connection is replaced, and the bytes go on where they
    ended, of the same version.
    """

    def __init__(self, reading: Reading, header: GetHeader) -> None:
        """Made by the client, once the header is there."""
        self.info = ObjectInfo.from_proto(header.object)
        self.offset = header.offset
        self.length = header.length
        self._reading = reading
        self._content = reading.content(header)

    def __aiter__(self) -> Self:
        """Itself: the bytes come once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes. Raises KeystowError; StopAsyncIteration only once everything is verified."""
        return await anext(self._content)

    async def aclose(self) -> None:
        """End the call, whatever is left of it."""
        await self._content.aclose()
        self._reading.cancel()

    async def __aenter__(self) -> Self:
        """The call is running already."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """See aclose."""
        await self.aclose()


@dataclass(frozen=True, slots=True)
class Getter:
    """How objects are fetched: over which stub, how persistently, and how many seconds of silence are believed."""

    stub: "StorageServiceAsyncStub"
    retry: Patience
    stall_timeout: float

    async def download(self, request: GetRequest) -> AsyncDownload:
        """The object's bytes, for the caller to iterate."""
        return await self._download(request, Retries(self.retry))

    async def fetch(self, request: GetRequest, sink: Sink, thread: TransferThread, progress: Progress) -> ObjectInfo:
        """Write the object's bytes to the sink. Raises KeystowError, and what the sink raises.

        ``progress`` hears the bytes received so far, from 0 again if they have to be fetched from the beginning.
        """
        wanted = GetRequest()
        wanted.CopyFrom(request)
        retries = Retries(self.retry)
        furthest = 0
        try:
            while True:
                try:
                    await thread.run(sink.start)
                    async with await self._download(wanted, retries) as download:
                        if sink.rewrites_in_place:
                            wanted.version_id = download.info.version_id
                        received = 0
                        async for data in download:
                            await thread.run(partial(sink.write, data))
                            received += len(data)
                            furthest = max(furthest, received)
                            progress(received)
                    await thread.run(sink.commit)
                except KeystowError as error:
                    if error.recovery is not Recovery.RESTART:
                        raise  # the download has tried what could be
                    gone = error.reason == "OBJECT_CHANGED" and wanted.version_id != ""
                    await retries.pause(error, helps=sink.restartable and not gone, position=furthest)
                else:
                    return download.info
        except BaseException:
            await asyncio.shield(thread.run(sink.discard))
            raise

    async def _download(self, request: GetRequest, retries: Retries) -> AsyncDownload:
        reading = Reading(self.stub, request, retries, self.stall_timeout)
        return AsyncDownload(reading, await reading.open())
