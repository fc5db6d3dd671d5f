"""One object's way to the service: in one message if it is small, else as a stream of chunks.

OK is believed only if the service acknowledges the very bytes that were read: size, CRC32C, and SHA-256 if asked for.
Every attempt uses the same upload_id, so that a repeated Put whose first answer was lost stores nothing twice.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import google_crc32c
import grpc.aio

from keystow.v1.storage_pb2 import Chunk, ObjectInfo, PutFinish, PutHeader, PutRequest, PutResponse, PutSmallRequest
from keystow_client.channel import silent_for, translated
from keystow_client.ending import Ending
from keystow_client.errors import IncompleteError, IntegrityError, Recovery, SourceChangedError, from_rpc_error
from keystow_client.retry import FROM_THE_START, RetryPolicy, retrying
from keystow_client.sources import CHUNK_SIZE, Source

if TYPE_CHECKING:
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub  # exists only in the stubs

Progress = Callable[[int], object]

# Seconds after which an empty chunk shows the service that the stream is alive, while the source has nothing to give.
# Far below the service's own stall timeout, and below the client's.
_KEEPALIVE = 10.0
_KEEPALIVES_PER_STALL = 30


@dataclass(frozen=True, slots=True)
class Putter:
    """How objects are put: over which stub, how persistently, and how many seconds of silence are believed."""

    stub: "StorageServiceAsyncStub"
    retry: RetryPolicy
    stall_timeout: float

    async def put(self, header: PutHeader, source: Source, progress: Progress) -> ObjectInfo:
        """Store the object, and return what the service says of it. Raises KeystowError, and what the source raises.

        ``header`` is complete but for the size. ``progress`` hears the bytes sent so far, from 0 again at each attempt.
        """

        async def attempt() -> ObjectInfo:
            head = await source.head()
            if len(head) < CHUNK_SIZE and not header.verify_sha256:
                return await self._put_small(header, head, source.size, progress)
            call = self.stub.Put()
            stream = PutStream(call, header, source.size, self.stall_timeout, progress)
            async with aclosing(source.chunks()) as chunks:
                return await stream.run(chunks)

        return await retrying(
            attempt, self.retry, lambda error: error.recovery in FROM_THE_START and source.restartable
        )

    async def _put_small(self, header: PutHeader, data: bytes, size: int | None, progress: Progress) -> ObjectInfo:
        content = Content()
        content.add(data)
        content.require_size(size)
        async with translated(None):
            response = await self.stub.PutSmall(
                PutSmallRequest(header=header, data=data, crc32c=content.crc32c), timeout=self.stall_timeout
            )
        content.require_same(response.object)
        progress(content.size)
        return response.object


class Content:
    """Size and checksums of the bytes read so far."""

    def __init__(self, *, with_sha256: bool = False) -> None:
        """SHA-256 costs more than the rest of a Put together: only where it is asked for."""
        self.size = 0
        self.crc32c = 0
        self._sha256 = hashlib.sha256() if with_sha256 else None

    def add(self, data: bytes) -> None:
        """Continue with these bytes."""
        self.size += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def sha256(self) -> bytes:
        """The digest; empty where it was not asked for."""
        return b"" if self._sha256 is None else self._sha256.digest()

    def require_size(self, size: int | None) -> None:
        """Raises SourceChangedError if the source is not as long as promised."""
        if size is not None and size != self.size:
            raise SourceChangedError(
                f"The source has {self.size} bytes where {size} were announced: it changed while it was read, "
                "or the size given was wrong. Nothing was stored."
            )

    def require_same(self, info: ObjectInfo) -> None:
        """Raises IntegrityError if the service acknowledged anything but these bytes."""
        stored = (info.size, info.crc32c if info.HasField("crc32c") else None)
        if stored != (self.size, self.crc32c) or (self.sha256 and info.sha256 != self.sha256):
            raise IntegrityError(
                f"The service acknowledged other bytes than were sent. Do not rely on version {info.version_id}: "
                "overwrite or delete it, and report this."
            )


class PutStream:
    """One attempt to put one object."""

    def __init__(
        self,
        call: "grpc.aio.StreamStreamCall[PutRequest, PutResponse]",
        header: PutHeader,
        size: int | None,
        stall_timeout: float,
        progress: Progress,
    ) -> None:
        """Takes the call over: it is finished or cancelled when ``run`` ends."""
        self._call = call
        self._ending = Ending(call)
        self._header = PutHeader()
        self._header.CopyFrom(header)
        if size is not None:
            self._header.size = size
        self._size = size
        self._stall_timeout = stall_timeout
        self._keepalive = min(_KEEPALIVE, stall_timeout / _KEEPALIVES_PER_STALL)
        self._progress = progress
        self._content = Content(with_sha256=header.verify_sha256)

    async def run(self, chunks: AsyncGenerator[bytes, None]) -> ObjectInfo:
        """Send everything and return the verified result.

        A failure that the service reports ends the sending at once, whatever is left. If the service has the object
        already and says so early, the rest is read only for its checksum.
        """
        answer = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send(chunks, answer))
        try:
            await asyncio.wait({answer, sending}, return_when=asyncio.FIRST_EXCEPTION)
            if not answer.done():
                sending.result()  # raises: the source failed, or the service fell silent
            info = answer.result()
            sending.result()
        finally:
            self._call.cancel()
            answer.cancel()
            sending.cancel()
            await asyncio.gather(answer, sending, return_exceptions=True)
        self._content.require_same(info)
        return info

    async def _receive(self) -> ObjectInfo:
        info: ObjectInfo | None = None
        with suppress(grpc.aio.AioRpcError):  # see ending.py
            async for response in self._call:
                if response.HasField("result"):
                    info = response.result.object
        failure = await self._ending.error()
        if failure is not None:
            raise from_rpc_error(failure)
        if info is None:
            raise IncompleteError("The stream ended without a result.", recovery=Recovery.RETRY)
        return info

    async def _send(self, chunks: AsyncGenerator[bytes, None], answer: "asyncio.Task[ObjectInfo]") -> None:
        content = self._content
        await self._write(PutRequest(header=self._header), answer)
        while chunk := await self._next(chunks, answer):
            request = PutRequest()  # filled in place: a Chunk made apart would be copied into it
            request.chunk.offset = content.size
            request.chunk.data = chunk
            request.chunk.crc32c = google_crc32c.value(chunk)
            content.add(chunk)
            await self._write(request, answer)
            self._progress(content.size)
        content.require_size(self._size)
        finish = PutFinish(size=content.size, crc32c=content.crc32c, sha256=content.sha256)
        await self._write(PutRequest(finish=finish), answer)
        with suppress(grpc.aio.InternalError):  # the service did not wait for it
            await self._call.done_writing()
        await self._wait_for(answer)

    async def _next(self, chunks: AsyncGenerator[bytes, None], answer: "asyncio.Task[ObjectInfo]") -> bytes:
        """The source's next chunk, with a sign of life to the service as often as it takes."""
        chunk = asyncio.ensure_future(anext(chunks, b""))
        try:
            while not (await asyncio.wait({chunk}, timeout=self._keepalive))[0]:
                await self._write(PutRequest(chunk=Chunk(offset=self._content.size)), answer)
            return chunk.result()
        finally:
            chunk.cancel()
            await asyncio.gather(chunk, return_exceptions=True)

    async def _write(self, request: PutRequest, answer: "asyncio.Task[ObjectInfo]") -> None:
        """Send a message; once the service has answered, only find out whether it failed."""
        if not answer.done():
            try:
                async with asyncio.timeout(self._stall_timeout):
                    await self._call.write(request)
            except TimeoutError:
                raise silent_for(self._stall_timeout) from None
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._wait_for(answer)  # the call has ended, and the answer says how
        if answer.done():
            answer.result()

    async def _wait_for(self, answer: "asyncio.Task[ObjectInfo]") -> None:
        await asyncio.wait({answer}, timeout=self._stall_timeout)
        if not answer.done():
            raise silent_for(self._stall_timeout)
