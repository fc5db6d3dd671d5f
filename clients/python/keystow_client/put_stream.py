"""The messages of one Put stream: sending, hearing of progress, and the result."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import google_crc32c
import grpc.aio

from keystow.v1.storage_pb2 import Chunk, ObjectInfo, PutFinish, PutRequest, PutResponse
from keystow_client.channel import silent_for
from keystow_client.ending import Ending
from keystow_client.errors import IncompleteError, Recovery, from_rpc_error
from keystow_client.upload import Upload

Progress = Callable[[int], object]

# Seconds after which an empty chunk shows the service that the stream is alive, while the source has nothing to give.
# Far below the service's own stall timeout, and below the client's.
_KEEPALIVE = 10.0
_KEEPALIVES_PER_STALL = 30


class PutStream:
    """One attempt to put one object, or the rest of it."""

    def __init__(
        self,
        call: "grpc.aio.StreamStreamCall[PutRequest, PutResponse]",
        upload: Upload,
        stall_timeout: float,
        progress: Progress,
    ) -> None:
        """Takes the call over: it is finished or cancelled when ``run`` ends."""
        self._call = call
        self._ending = Ending(call)
        self._upload = upload
        self._stall_timeout = stall_timeout
        self._keepalive = min(_KEEPALIVE, stall_timeout / _KEEPALIVES_PER_STALL)
        self._progress = progress

    async def run(self, first: bytes, chunks: AsyncGenerator[bytes, None]) -> ObjectInfo:
        """Send ``first`` and all chunks after it, and return the verified result.

        A failure that the service reports ends the sending at once, whatever is left. If the service has the object
        already and says so early, the rest is read only for its checksum.
        """
        answer = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send(first, chunks, answer))
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
        self._upload.content.require_same(info)
        return info

    async def _receive(self) -> ObjectInfo:
        info: ObjectInfo | None = None
        with suppress(grpc.aio.AioRpcError):  # see ending.py
            async for response in self._call:
                if response.HasField("result"):
                    info = response.result.object
                    self._upload.source.hold_no_more()  # what is left is only compared
                elif self._upload.resumable:
                    self._upload.advance(response.progress)
        failure = await self._ending.error()
        if failure is not None:
            raise from_rpc_error(failure)
        if info is None:
            raise IncompleteError("The stream ended without a result.", recovery=Recovery.RETRY)
        return info

    async def _send(
        self, first: bytes, chunks: AsyncGenerator[bytes, None], answer: "asyncio.Task[ObjectInfo]"
    ) -> None:
        content = self._upload.content
        await self._write(PutRequest(header=self._upload.first_message()), answer)
        while chunk := first or await self._next(chunks, answer):
            first = b""
            request = PutRequest()  # filled in place: a Chunk made apart would be copied into it
            request.chunk.offset = content.size
            request.chunk.data = chunk
            request.chunk.crc32c = google_crc32c.value(chunk)
            self._upload.add(chunk)
            await self._write(request, answer)
            self._progress(content.size)
        content.require_size(self._upload.source.size)
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
                await self._write(PutRequest(chunk=Chunk(offset=self._upload.content.size)), answer)
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
