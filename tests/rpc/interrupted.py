"""Puts that are interrupted and continued: streams under the test's control, and their progress."""

from dataclasses import dataclass, field
from typing import Any

import grpc

from keystow.v1.storage_pb2 import ObjectInfo, PutRequest, PutResponse, UploadProgress
from rpc.wire import MIB, TIMEOUT, chunk, finish, header, new_upload_id
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
