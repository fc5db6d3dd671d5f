"""keystow.v1.StorageService: each method translates, calls its use case, and translates back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from keystow.v1 import storage_pb2, storage_pb2_grpc
from keystow_service.errors import RequestInvalidError, StreamStalledError, Violation
from keystow_service.keys.held_key import KeyInUse
from keystow_service.model import (
    MAX_CHUNK_SIZE,
    MAX_KEY_SIZE,
    MAX_METADATA_SIZE,
    MAX_PAGE_SIZE,
    MAX_SMALL_OBJECT_SIZE,
)
from keystow_service.objects.command import Chunk, Finish
from keystow_service.objects.delete import DeleteObject
from keystow_service.objects.export.export import ExportObjects
from keystow_service.objects.get import GetObject
from keystow_service.objects.list import ListObjects
from keystow_service.objects.names import parse_key
from keystow_service.objects.progress import LatestProgress, Progress
from keystow_service.objects.put import PutObject
from keystow_service.objects.resume import AbortPut, ResumePut
from keystow_service.objects.stat import StatObject
from keystow_service.rpc import page_token, translate, translate_export
from keystow_service.rpc.call import Context, current_call
from keystow_service.rpc.progress import telling
from keystow_service.rpc.requests import read, readable


@dataclass(frozen=True, slots=True)
class ObjectUseCases:
    """What the service offers to do with objects."""

    put: PutObject
    resume: ResumePut
    abort_put: AbortPut
    get: GetObject
    export: ExportObjects
    stat: StatObject
    list: ListObjects
    delete: DeleteObject


@dataclass(frozen=True, slots=True)
class Limits:
    """What GetServerInfo tells. Sizes in bytes, the timeout in seconds."""

    version: str
    max_object_size: int
    stall_timeout: float


class StorageService(storage_pb2_grpc.StorageServiceServicer):
    """See the contract, protos/keystow/v1/storage.proto.

    The streaming methods are coroutines that read from and write to the context, as grpc.aio offers; the generated
    stubs know only generators, hence the ignored overrides.
    """

    def __init__(self, objects: ObjectUseCases, limits: Limits) -> None:
        self._objects = objects
        self._limits = limits

    async def Put(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        """Requests are read from the context one by one, so that reading never waits for writing."""
        call = current_call.get()
        message = await self._receive(context)
        if message.WhichOneof("message") != "header":
            raise _out_of_order("The first message of a Put must be its header.")
        header = message.header
        call.concerns(tenant_id=header.tenant_id, key=header.key, upload_id=header.upload_id)
        progress = LatestProgress()

        async def tell(latest: Progress) -> None:
            await self._send_metadata(context)
            await context.write(translate.put_progress(latest))

        async with (
            aclosing(self._content(context, sha256=header.verify_sha256)) as content,
            telling(progress, tell, partial(self._receive, context), self._stall_timeout("read")),
        ):
            if header.resume_token:
                info = await self._objects.resume(translate.resume_command(header, call.caller), content, progress)
            else:
                command = translate.put_command(header, call.caller)
                info = await self._objects.put(command, content, progress if header.resumable else None)
        await self._send(
            context, storage_pb2.PutResponse(result=storage_pb2.PutResult(object=translate.object_info(info)))
        )

    async def PutSmall(self, request: storage_pb2.PutSmallRequest, context: Context) -> storage_pb2.PutSmallResponse:
        call = current_call.get()
        header = request.header
        call.concerns(tenant_id=header.tenant_id, key=header.key, upload_id=header.upload_id)
        call.bytes_in = len(request.data)
        command, chunk = translate.put_small(request, call.caller)
        async with aclosing(_whole(chunk)) as content:
            info = await self._objects.put(command, content)
        return storage_pb2.PutSmallResponse(object=translate.object_info(info))

    async def Get(self, request: storage_pb2.GetRequest, context: Context) -> None:  # type: ignore[override]
        in_use = KeyInUse()
        async with aclosing(self._objects.get(translate.get_command(request), in_use)) as pieces:
            async for piece in pieces:
                await self._hand_out(context, piece, translate.get_response(piece), in_use)

    async def Export(self, request: storage_pb2.ExportRequest, context: Context) -> None:  # type: ignore[override]
        call = current_call.get()
        in_use = KeyInUse()
        async with aclosing(self._objects.export(translate_export.command(request, call.caller), in_use)) as pieces:
            async for piece in pieces:
                await self._hand_out(context, piece, translate_export.response(piece, call), in_use)

    async def Stat(self, request: storage_pb2.StatRequest, context: Context) -> storage_pb2.StatResponse:
        info = await self._objects.stat(
            translate.tenant_id(request.tenant_id),
            parse_key(request.key),
            version_id=translate.version_id(request.version_id),
        )
        return storage_pb2.StatResponse(object=translate.object_info(info))

    async def List(self, request: storage_pb2.ListRequest, context: Context) -> storage_pb2.ListResponse:
        tenant_id, prefix = translate.tenant_id(request.tenant_id), request.prefix
        scope = f"objects/{tenant_id}/{prefix}"
        page = await self._objects.list(
            tenant_id,
            prefix,
            start_after=_key_of(page_token.decode(request.page_token, scope=scope)),
            limit=translate.page_size(request.page_size),
        )
        return storage_pb2.ListResponse(
            objects=[translate.object_info(info) for info in page.objects],
            next_page_token=page_token.encode(page.objects[-1].key, scope=scope) if page.more else "",
        )

    async def Delete(self, request: storage_pb2.DeleteRequest, context: Context) -> storage_pb2.DeleteResponse:
        await self._objects.delete(
            translate.tenant_id(request.tenant_id),
            parse_key(request.key),
            if_version_id=translate.version_id(request.if_version_id, "if_version_id"),
            allow_missing=request.allow_missing,
        )
        return storage_pb2.DeleteResponse()

    async def AbortPut(self, request: storage_pb2.AbortPutRequest, context: Context) -> storage_pb2.AbortPutResponse:
        call = current_call.get()
        call.concerns(upload_id=request.upload_id)
        await self._objects.abort_put(translate.abort_command(request, call.caller))
        return storage_pb2.AbortPutResponse()

    async def GetServerInfo(
        self,
        request: storage_pb2.GetServerInfoRequest,
        context: Context,
    ) -> storage_pb2.GetServerInfoResponse:
        return storage_pb2.GetServerInfoResponse(
            version=self._limits.version,
            max_object_size=self._limits.max_object_size,
            max_chunk_size=MAX_CHUNK_SIZE,
            max_small_object_size=MAX_SMALL_OBJECT_SIZE,
            max_key_size=MAX_KEY_SIZE,
            max_metadata_size=MAX_METADATA_SIZE,
            max_page_size=MAX_PAGE_SIZE,
            stall_timeout_seconds=int(self._limits.stall_timeout),
        )

    async def _content(self, context: Context, *, sha256: bool) -> AsyncGenerator[Chunk | Finish, None]:
        """What follows a PutHeader, up to and with PutFinish. Later messages are not waited for."""
        call = current_call.get()
        while True:
            message = await self._receive(context)
            match message.WhichOneof("message"):
                case "chunk":
                    chunk = translate.chunk(message.chunk)
                    call.bytes_in += len(chunk.data)
                    yield chunk
                case "finish":
                    yield translate.finish(message.finish, sha256=sha256)
                    return
                case _:
                    raise _out_of_order("After its header a Put takes chunks and then PutFinish, nothing else.")

    async def _receive(self, context: Context) -> storage_pb2.PutRequest:
        try:
            message = await read(context, self._limits.stall_timeout)
        except TimeoutError:
            raise self._stalled("sent") from None
        if message is grpc.aio.EOF:
            raise _out_of_order("The stream ended without PutFinish; nothing was stored.")
        request: storage_pb2.PutRequest = readable(message)
        return request

    async def _send_metadata(self, context: Context) -> None:
        """Once, and apart from the first message; never left half done.

        While metadata is on its way no status can be sent (grpc.aio would send the metadata with it again), and the
        client would wait for one until its deadline.
        """
        sending = asyncio.ensure_future(context.send_initial_metadata(()))
        try:
            with suppress(grpc.aio.UsageError):  # it was sent before
                await asyncio.shield(sending)
        finally:
            await asyncio.gather(sending, return_exceptions=True)
            del sending  # whose exception's traceback holds this frame, and that the call

    async def _hand_out(self, context: Context, piece: object, message: Message, in_use: KeyInUse) -> None:
        """What stands under a key."""
        call = current_call.get()
        if not call.bytes_out:
            await self._send_metadata(context)
        if isinstance(piece, Chunk):
            call.hands_out()
        with in_use.waiting():
            await self._send(context, message)
        if isinstance(piece, Chunk):
            call.bytes_out += len(piece.data)

    async def _send(self, context: Context, message: Message) -> None:
        async with self._stall_timeout("read"):
            await context.write(message)

    @asynccontextmanager
    async def _stall_timeout(self, deed: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.stall_timeout):
                yield
        except TimeoutError:
            raise self._stalled(deed) from None

    def _stalled(self, deed: str) -> StreamStalledError:
        return StreamStalledError(
            f"The client {deed} nothing for {self._limits.stall_timeout:.0f} s. Keep the stream moving: "
            "an empty Chunk keeps a slow Put alive."
        )


async def _whole(chunk: Chunk) -> AsyncGenerator[Chunk | Finish, None]:
    yield chunk
    yield Finish(len(chunk.data))


def _key_of(token: str) -> str:
    """What the token goes on after. Raises PageTokenInvalidError for what no list gave out."""
    try:
        return parse_key(token) if token else ""
    except RequestInvalidError:
        raise page_token.invalid() from None


def _out_of_order(problem: str) -> RequestInvalidError:
    return RequestInvalidError(problem, violations=[Violation("message", problem)])
