"""Puts that are interrupted and continued: streams under the test's control, and their progress."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import grpc

from keystow.v1.storage_pb2 import ObjectInfo, PutRequest, PutResponse, StatRequest, UploadProgress
from rpc.wire import MIB, TIMEOUT, Failure, chunk, failure, finish, get, header, new_upload_id, send, told_by
from servers.in_process import Server

PART = 8 * MIB  # of an object whose size is not declared, or small

PutCall = grpc.aio.StreamStreamCall[PutRequest, PutResponse]


@dataclass
class ResumablePut:
    """One stream of a resumable upload. ``key`` and ``upload_id`` are those of all its streams."""

    call: PutCall
    tenant: str
    key: str
    upload_id: str
    progress: list[UploadProgress] = field(default_factory=list)

    async def told(self) -> UploadProgress:
        """The next progress."""
        response = await self.call.read()
        assert isinstance(response, PutResponse)
        assert response.WhichOneof("message") == "progress"
        self.progress.append(response.progress)
        return response.progress

    async def told_of(self, size: int) -> UploadProgress:
        """The first progress of at least ``size`` bytes."""
        while not self.progress or self.progress[-1].persisted_size < size:
            await self.told()
        return self.progress[-1]

    async def send(self, data: bytes, start: int = 0) -> None:
        """Chunks of ``data`` from ``start`` on."""
        for offset in range(start, len(data), MIB):
            await self.call.write(chunk(offset, data[offset : offset + MIB]))

    async def end(self, size: int, **fields: Any) -> ObjectInfo:
        """PutFinish; the result."""
        await self.call.write(finish(size, **fields))
        return await self.result()

    async def result(self) -> ObjectInfo:
        """What stands behind all further progress."""
        while True:
            response = await self.call.read()
            assert isinstance(response, PutResponse)
            if response.WhichOneof("message") == "result":
                assert await self.call.read() is grpc.aio.EOF
                return response.result.object
            self.progress.append(response.progress)


async def begin(server: Server, tenant: str, key: str = "key", **fields: Any) -> ResumablePut:
    """A new resumable upload; nothing is sent but its header."""
    upload_id = fields.pop("upload_id", None) or new_upload_id()
    call: PutCall = server.storage.Put(timeout=TIMEOUT)
    await call.write(header(tenant, key, upload_id=upload_id, resumable=True, **fields))
    return ResumablePut(call, tenant, key, upload_id)


async def resume(server: Server, put: ResumablePut, token: bytes) -> ResumablePut:
    """Another stream of the same upload, from ``token``; nothing is sent but its header."""
    call: PutCall = server.storage.Put(timeout=TIMEOUT)
    await call.write(header(put.tenant, put.key, upload_id=put.upload_id, resume_token=token))
    return ResumablePut(call, put.tenant, put.key, put.upload_id)


async def interrupted(
    server: Server, tenant: str, data: bytes, persisted: int, key: str = "key", **fields: Any
) -> ResumablePut:
    """An upload whose stream was cut when at least ``persisted`` bytes were durable."""
    put = await begin(server, tenant, key, **fields)
    await put.send(data)
    await put.told_of(persisted)
    put.call.cancel()
    return put


async def rival(server: Server, before: ResumablePut, last: UploadProgress, data: bytes) -> ObjectInfo | Failure:
    """Go on from ``last`` to the end, side by side with others; how that ended.

    By ``send``, because the asyncio client loses the status of a call that ends while it is still sending.
    """
    begun = header(before.tenant, before.key, upload_id=before.upload_id, resume_token=last.resume_token)
    chunks = [chunk(at, data[at : at + MIB]) for at in range(last.persisted_size, len(data), MIB)]
    end = finish(len(data), crc32c=google_crc32c.value(data))
    try:
        responses = await send(server, "Put", begun, *chunks, end)
    except grpc.RpcError as error:
        return told_by(error)
    return PutResponse.FromString(responses[-1]).result.object


async def expect_one_or_none(
    server: Server, before: ResumablePut, ends: Sequence[ObjectInfo | Failure], contents: Sequence[bytes], *, moto: bool
) -> None:
    """Of several streams of one upload, one was committed, whole, or none; all others were told why not."""
    committed = [data for end, data in zip(ends, contents, strict=True) if isinstance(end, ObjectInfo)]
    reasons = {end.reason for end in ends if isinstance(end, Failure)}
    gone = {"STORE_UNAVAILABLE"} if moto else set()  # its answer to a part of an upload that is gone
    assert reasons <= {"UPLOAD_SUPERSEDED", "UPLOAD_EXPIRED", "UPLOAD_ID_REUSED"} | gone
    assert len(committed) <= 1
    if committed:
        assert (await get(server, before.tenant, before.key)).data == committed[0]
    else:
        missing = await failure(server.storage.Stat(StatRequest(tenant_id=before.tenant, key=before.key)))
        assert missing.reason == "OBJECT_NOT_FOUND"
