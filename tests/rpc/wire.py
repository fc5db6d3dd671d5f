"""Speaking to a server through its channel: messages of a Put, whole reads, and what a failing call said."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import google_crc32c
import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from keystow.v1 import storage_pb2, tenants_pb2
from keystow.v1.storage_pb2 import (
    Chunk,
    GetRequest,
    GetResponse,
    ObjectInfo,
    PutFinish,
    PutHeader,
    PutRequest,
    PutResponse,
)
from servers.in_process import Server

MIB = 1 << 20
TIMEOUT = 90  # seconds; no call of a test may hang

_SERVICES = (
    storage_pb2.DESCRIPTOR.services_by_name["StorageService"],
    tenants_pb2.DESCRIPTOR.services_by_name["TenantService"],
)
# Every RPC of the contract, by its name, with its path.
PATHS = {method.name: f"/{service.full_name}/{method.name}" for service in _SERVICES for method in service.methods}


@dataclass(frozen=True, slots=True)
class Failure:
    """The status of a failed call. Without ErrorInfo the ``reason`` and ``recovery`` are empty."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    recovery: str = ""
    metadata: Mapping[str, str] | None = None
    violations: tuple[str, ...] = ()  # the fields of a BadRequest, or the names of a PreconditionFailure's checks
    details: frozenset[str] = frozenset()  # full names of the messages
    delay: float | None = None  # of a RetryInfo, in seconds


async def failure(call: Awaitable[Any]) -> Failure:
    """What a call that must fail ends with."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return told_by(error)
    raise AssertionError(f"the call succeeded: {answer!r:.300}")


async def refused(call: Callable[[], Awaitable[Any]]) -> Failure:
    """How the call fails, as soon as it does: a lease may still be running."""
    while True:
        try:
            await call()
        except grpc.RpcError as error:
            return told_by(error)


def told_by(error: Any) -> Failure:
    """What an RpcError says."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        return Failure(error.code(), error.details() or "")
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    infos = _unpacked(status, error_details_pb2.ErrorInfo)
    assert [info.domain for info in infos] == ["keystow"]
    [info] = infos
    delays = [each.retry_delay.ToNanoseconds() / 1e9 for each in _unpacked(status, error_details_pb2.RetryInfo)]
    assert info.metadata["requestId"]
    return Failure(
        error.code(),
        status.message,
        info.reason,
        info.metadata["recovery"],
        dict(info.metadata),
        tuple(
            [each.field for bad in _unpacked(status, error_details_pb2.BadRequest) for each in bad.field_violations]
            + [each.type for bad in _unpacked(status, error_details_pb2.PreconditionFailure) for each in bad.violations]
        ),
        frozenset(detail.TypeName() for detail in status.details),
        delays[0] if delays else None,
    )


def _unpacked(status: status_pb2.Status, kind: Any) -> list[Any]:
    messages = []
    for detail in status.details:
        if detail.Is(kind.DESCRIPTOR):
            message = kind()
            detail.Unpack(message)
            messages.append(message)
    return messages


async def send(server: Server, method: str, *messages: Message | bytes) -> list[bytes]:
    """Send these messages to an RPC, bytes as they are; answers what came back, as bytes.

    Unary calls differ from streams in the number of their messages only, not on the wire. From a thread, because the
    asyncio client loses the status of a call that ends while it is still sending (grpc/grpc#36066).
    """
    return await asyncio.to_thread(_send, server.blocking_channel, method, iter(messages))


def _send(channel: grpc.Channel, method: str, messages: Iterator[Message | bytes]) -> list[bytes]:
    call: Any = channel.stream_stream(PATHS[method], request_serializer=_encoded)
    return list(call(messages, timeout=TIMEOUT))


def _encoded(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def new_upload_id() -> str:
    """One that no other upload has."""
    return str(uuid.uuid4())


def header(tenant_id: str, key: str, **fields: Any) -> PutRequest:
    """The header of a Put, of an upload of its own unless ``upload_id`` is given."""
    return PutRequest(header=PutHeader(tenant_id=tenant_id, key=key, **{"upload_id": new_upload_id(), **fields}))


def chunk(offset: int, data: bytes, **fields: Any) -> PutRequest:
    """One chunk."""
    return PutRequest(chunk=Chunk(offset=offset, data=data, **fields))


def finish(size: int, **fields: Any) -> PutRequest:
    """The end of a Put."""
    return PutRequest(finish=PutFinish(size=size, **fields))


def body(pieces: Iterable[bytes], **fields: Any) -> Iterator[PutRequest]:
    """Chunks for these pieces with their sums, and the PutFinish, with ``fields``."""
    offset, crc32c = 0, 0
    for piece in pieces:
        yield chunk(offset, piece, crc32c=google_crc32c.value(piece))
        offset += len(piece)
        crc32c = google_crc32c.extend(crc32c, piece)
    yield finish(offset, crc32c=crc32c, **fields)


def content(size: int, name: str = "") -> bytes:
    """Bytes that do not repeat, the same for the same name."""
    return hashlib.shake_256(name.encode()).digest(size)


def pieces_of(data: bytes, size: int = MIB) -> Iterator[bytes]:
    """The data in pieces of ``size``."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def send_put(server: Server, *messages: PutRequest) -> ObjectInfo:
    """Send a Put's messages; answers its result."""
    responses = [PutResponse.FromString(response) for response in await send(server, "Put", *messages)]
    assert [response.WhichOneof("message") for response in responses] == ["result"]
    return responses[0].result.object


async def put(server: Server, tenant_id: str, key: str, data: bytes = b"", **fields: Any) -> ObjectInfo:
    """Store ``data``; ``fields`` of the header."""
    return await send_put(server, header(tenant_id, key, **fields), *body(pieces_of(data)))


@dataclass(frozen=True, slots=True)
class Read:
    """A completed Get. ``crc32c`` is what GetFinish said."""

    object: ObjectInfo
    offset: int
    length: int
    data: bytes
    crc32c: int


async def get(server: Server, tenant_id: str, key: str, **fields: Any) -> Read:
    """Read an object or a range, and hold the stream to its contract: order of messages, offsets, checksums."""
    stream = aiter(server.storage.Get(GetRequest(tenant_id=tenant_id, key=key, **fields), timeout=TIMEOUT))
    first = await anext(stream)
    assert first.WhichOneof("message") == "header"
    data, crc32c, finished = bytearray(), 0, False
    async for response in stream:
        assert not finished
        match response.WhichOneof("message"):
            case "chunk":
                _check_chunk(response, first.header.offset + len(data))
                data += response.chunk.data
            case "finish":
                finished, crc32c = True, response.finish.crc32c
            case other:
                raise AssertionError(other)
    assert finished
    assert len(data) == first.header.length
    assert google_crc32c.value(bytes(data)) == crc32c
    return Read(first.header.object, first.header.offset, first.header.length, bytes(data), crc32c)


def _check_chunk(response: GetResponse, offset: int) -> None:
    assert response.chunk.offset == offset
    assert 0 < len(response.chunk.data) <= MIB
    assert response.chunk.crc32c == google_crc32c.value(response.chunk.data)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come, but not for ever."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def received(stream: AsyncIterator[GetResponse], into: bytearray) -> None:
    """Collect the plaintext of a Get that must fail on the way."""
    async for response in stream:
        assert response.WhichOneof("message") != "finish"
        into += response.chunk.data
