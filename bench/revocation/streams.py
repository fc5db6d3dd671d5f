"""The clients of a trial, each a task that goes on until the service refuses it, and says how it ended."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import google_crc32c
import grpc

from keystow.v1.storage_pb2 import (
    Chunk,
    ExportRequest,
    GetRequest,
    PutFinish,
    PutHeader,
    PutRequest,
    PutSmallRequest,
)
from rpc.wire import told_by

if TYPE_CHECKING:  # this exists for type checkers only
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub

BIG = "big"
_PACE = 0.1  # seconds between two chunks of 1 MiB
_SLOW_PACE = 1.0
_SMALL = 1_000  # bytes


@dataclass(frozen=True, slots=True)
class End:
    """Of one client: for what reason it was refused, how many calls it began, and when it sent each MiB of the last."""

    reason: str
    calls: int
    sent_at: Sequence[float] = ()  # seconds since the epoch


class Acknowledged(dict[str, bytes]):
    """Objects that the service has said are stored: keys and contents."""


async def _until_refused(step: Callable[[int], Coroutine[Any, Any, None]]) -> End:
    for number in itertools.count():
        try:
            await step(number)
        except grpc.RpcError as error:
            if reason := told_by(error).reason:
                return End(reason, number + 1)
            # A stream that was not read was reset, which looks like the loss of a connection: begin again.
    raise AssertionError


async def small_puts(storage: "StorageServiceAsyncStub", tenant_id: str, stored: Acknowledged) -> End:
    """Backups of small objects, one after the other."""

    async def step(number: int) -> None:
        key, data = f"small/{uuid.uuid4()}", str(number).encode().ljust(_SMALL)
        await storage.PutSmall(PutSmallRequest(header=_header(tenant_id, key), data=data))
        stored[key] = data
        await asyncio.sleep(_PACE)

    return await _until_refused(step)


async def endless_put(storage: "StorageServiceAsyncStub", tenant_id: str) -> End:
    """A backup that never comes to its end by itself."""
    sent_at: list[float] = []

    async def messages() -> AsyncIterator[PutRequest]:
        sent_at.clear()
        yield PutRequest(header=_header(tenant_id, f"endless/{uuid.uuid4()}"))
        data = bytes(1 << 20)
        for number in itertools.count():
            sent_at.append(time.time())
            yield PutRequest(chunk=Chunk(offset=number * len(data), data=data))
            await asyncio.sleep(_PACE)
        yield PutRequest(finish=PutFinish())

    async def step(_: int) -> None:
        async for _response in storage.Put(messages()):
            pass

    return replace(await _until_refused(step), sent_at=sent_at)


async def gets(storage: "StorageServiceAsyncStub", tenant_id: str) -> End:
    """Restores, one after the other, at a pace."""

    async def step(_: int) -> None:
        async for _response in storage.Get(GetRequest(tenant_id=tenant_id, key=BIG)):
            await asyncio.sleep(_PACE)

    return await _until_refused(step)


async def slow_get(storage: "StorageServiceAsyncStub", tenant_id: str) -> End:
    """A restore whose client reads a message a second, and takes little ahead."""

    async def step(_: int) -> None:
        async for _response in storage.Get(GetRequest(tenant_id=tenant_id, key=BIG)):
            await asyncio.sleep(_SLOW_PACE)

    return await _until_refused(step)


async def unread_get(storage: "StorageServiceAsyncStub", tenant_id: str, switched: asyncio.Event, grace: float) -> End:
    """A restore whose client stops to read, until long after the switch."""

    async def step(_: int) -> None:
        stream = aiter(storage.Get(GetRequest(tenant_id=tenant_id, key=BIG)))
        await anext(stream)
        await switched.wait()
        await asyncio.sleep(grace)
        async for _response in stream:
            pass

    return await _until_refused(step)


async def exports(storage: "StorageServiceAsyncStub", tenant_id: str) -> End:
    """Exports, one after the other, at a pace."""

    async def step(_: int) -> None:
        async for response in storage.Export(ExportRequest(tenant_id=tenant_id, prefix="")):
            if response.WhichOneof("message") == "chunk":
                await asyncio.sleep(_PACE)

    return await _until_refused(step)


async def put_whole(storage: "StorageServiceAsyncStub", tenant_id: str, key: str, data: bytes) -> None:
    """Store one object."""

    async def messages() -> AsyncIterator[PutRequest]:
        yield PutRequest(header=_header(tenant_id, key))
        for start in range(0, len(data), 1 << 20):
            yield PutRequest(chunk=Chunk(offset=start, data=data[start : start + (1 << 20)]))
        yield PutRequest(finish=PutFinish(size=len(data), crc32c=google_crc32c.value(data)))

    async for _response in storage.Put(messages()):
        pass


async def get_whole(storage: "StorageServiceAsyncStub", tenant_id: str, key: str) -> bytes:
    """Read one object."""
    data = bytearray()
    async for response in storage.Get(GetRequest(tenant_id=tenant_id, key=key)):
        data += response.chunk.data
    return bytes(data)


def _header(tenant_id: str, key: str) -> PutHeader:
    return PutHeader(tenant_id=tenant_id, key=key, upload_id=str(uuid.uuid4()))
