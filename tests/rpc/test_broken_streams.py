"""Streams that end otherwise than they should: the server notices, gives everything back, and keeps nothing."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from client.relay import Relay
from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, ListRequest, PutRequest, PutResponse
from rpc.exports import Export, drained, export, request
from rpc.wire import MIB, TIMEOUT, body, chunk, content, failure, get, header, pieces_of, put, received, until
from servers.in_process import NARROW_WINDOW, Server, connected, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

PART = 8 * MIB  # of an object whose size was not declared
STALL_TIMEOUT = 2  # seconds, of an impatient server
TINY_WINDOW = ("grpc.http2.lookahead_bytes", 16)  # of a client that takes less than one message before it reads
BEGUN = content(PART + MIB)  # one part, which is being written, and a bit more

PutCall = grpc.aio.StreamStreamCall[PutRequest, PutResponse]


async def begin(server: Server, tenant: str, channel: grpc.aio.Channel, **call_options: Any) -> PutCall:
    """A Put of which a part is on the disk already."""
    call: PutCall = storage_pb2_grpc.StorageServiceStub(channel).Put(**{"timeout": TIMEOUT, **call_options})
    await call.write(header(tenant, "key"))
    for message in list(body(pieces_of(BEGUN)))[:-1]:
        await call.write(message)
    await until(lambda: server.unfinished() != [])
    return call


async def expect_nothing_left(server: Server, tenant: str) -> None:
    """Once the server has noticed: no temp file, no object; and the key can be put."""
    await until(lambda: server.unfinished() == [])
    assert (await server.storage.List(ListRequest(tenant_id=tenant))).objects == []
    assert server.stored(tenant) == []
    await put(server, tenant, "key", b"content")
    assert (await get(server, tenant, "key")).data == b"content"


async def test_a_cancelled_put(server: Server, tenant: str) -> None:
    """The client takes its call back."""
    call = await begin(server, tenant, server.channel)
    call.cancel()
    await expect_nothing_left(server, tenant)


async def test_a_put_past_its_deadline(server: Server, tenant: str) -> None:
    """The client's own deadline passes on a stream that stands still."""
    call = await begin(server, tenant, server.channel, timeout=2)
    told = await failure(call.read())
    assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await expect_nothing_left(server, tenant)


async def test_a_client_that_closes_its_connection(server: Server, tenant: str) -> None:
    """The process ends in order, in the middle of its Put."""
    async with connected(server.address) as channel:
        call = await begin(server, tenant, channel)
    assert call.done()
    await expect_nothing_left(server, tenant)


async def test_a_client_that_vanishes(server: Server, tenant: str) -> None:
    """The connection is reset without a word."""
    with Relay(int(server.address.rpartition(":")[2])) as relay:
        relay.cuts.append(("sent", len(BEGUN) + MIB // 2))
        async with connected(relay.address) as channel:
            call = await begin(server, tenant, channel)
            told = await failure(lose(call))
            assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "")
            await expect_nothing_left(server, tenant)


async def lose(call: PutCall) -> None:
    """Write on until the connection breaks."""
    await call.write(chunk(len(BEGUN), content(MIB)))
    await call.read()


async def test_a_get_that_is_cancelled(server: Server, tenant: str) -> None:
    """A reader that has seen enough disturbs nobody: its call ends, and the object is there for the next."""
    data = content(4 * MIB)
    await put(server, tenant, "key", data)
    async with connected(server.address, NARROW_WINDOW) as channel:
        with capture_logs() as log:
            storage = storage_pb2_grpc.StorageServiceStub(channel)
            call = storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT)
            await call.read()
            call.cancel()
            await until(lambda: log != [])
    assert [(entry["event"], entry["method"], entry["code"]) for entry in log] == [("rpc", "Get", "CANCELLED")]
    assert (await get(server, tenant, "key")).data == data


@asynccontextmanager
async def impatient(data_dir: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server that waits STALL_TIMEOUT for a peer, and a tenant there."""
    async with serving(data_dir, stall_timeout=STALL_TIMEOUT) as server:
        yield server, await register(server, "acme")


async def test_a_sender_that_stalls(tmp_path: Path) -> None:
    """After the stall timeout the Put ends with the reason, before its header and after."""
    async with impatient(tmp_path) as (server, tenant):
        silent = server.storage.Put(timeout=TIMEOUT)
        begun = await begin(server, tenant, server.channel)
        for call in (silent, begun):
            told = await failure(call.read())
            assert (told.code, told.reason, told.recovery) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "STREAM_STALLED",
                "resume",
            )
        await expect_nothing_left(server, tenant)


async def test_a_reader_that_stalls(tmp_path: Path) -> None:
    """A Get whose client reads nothing ends on the server, and the client never takes what it has for the whole."""
    async with impatient(tmp_path) as (server, tenant), connected(server.address, NARROW_WINDOW) as channel:
        data = content(4 * MIB)
        await put(server, tenant, "key", data)
        with capture_logs() as log:
            storage = storage_pb2_grpc.StorageServiceStub(channel)
            call = storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT)
            await until(lambda: log != [])
        assert [(entry["method"], entry["reason"]) for entry in log] == [("Get", "STREAM_STALLED")]
        plaintext = bytearray()
        await failure(received(aiter(call), plaintext))
        assert data.startswith(plaintext)
        assert len(plaintext) < len(data)


async def test_a_sender_that_reads_nothing_until_it_has_sent_everything(tmp_path: Path) -> None:
    """It may take longer than the stall timeout: progress that it leaves unread costs nothing, and it is answered."""
    async with (
        impatient(tmp_path) as (server, tenant),
        connected(server.address, NARROW_WINDOW, TINY_WINDOW) as channel,
    ):
        call: PutCall = storage_pb2_grpc.StorageServiceStub(channel).Put(timeout=TIMEOUT)
        await call.write(header(tenant, "key", resumable=True))
        begun = time.monotonic()
        for second in range(2 * STALL_TIMEOUT):
            await until(lambda second=second: time.monotonic() >= begun + second)  # type: ignore[misc]
            await call.write(chunk(0, b""))
        for message in body(pieces_of(BEGUN)):
            await call.write(message)
        responses = [response async for response in call]
        assert responses[-1].result.object.size == len(BEGUN)
        assert (await get(server, tenant, "key")).data == BEGUN


async def test_an_exports_reader_that_stalls(tmp_path: Path) -> None:
    """So does an Export, of one object or of many; what was opened ahead is closed with it."""
    async with impatient(tmp_path) as (server, tenant), connected(server.address, NARROW_WINDOW) as channel:
        for number in range(40):
            await put(server, tenant, f"small/{number}", content(MIB // 4))
        await put(server, tenant, "large", content(6 * MIB))
        for prefix in ("small/", "large"):
            with capture_logs() as log:
                storage = storage_pb2_grpc.StorageServiceStub(channel)
                call = storage.Export(request(tenant, prefix=prefix), timeout=TIMEOUT)
                await until(lambda log=log: log != [])  # type: ignore[misc]
            assert [(entry["method"], entry["reason"]) for entry in log] == [("Export", "STREAM_STALLED")]
            assert (await failure(drained(aiter(call), Export()))).code is not None


async def test_a_client_that_leaves_an_export(server: Server, tenant: str) -> None:
    """Cancelled in the middle, the export ends at once on the server, and another one has all it needs."""
    for number in range(40):
        await put(server, tenant, f"{number:02}", content(MIB // 4))
    with capture_logs() as log:
        async with connected(server.address, NARROW_WINDOW) as channel:
            call = storage_pb2_grpc.StorageServiceStub(channel).Export(request(tenant), timeout=TIMEOUT)
            await anext(aiter(call))
            call.cancel()
            await until(lambda: log != [])
    assert [(entry["event"], entry["method"], entry["code"]) for entry in log] == [("rpc", "Export", "CANCELLED")]
    whole = await export(server, request(tenant))
    assert whole.summary
    assert whole.summary.object_count == 40


async def test_too_many_streams_for_the_buffers(tmp_path: Path) -> None:
    """Beyond the budget a stream waits, and is refused with a hint when to come back; then there is room again."""
    async with serving(tmp_path, buffer_budget=64 * MIB, admission_timeout=0.2) as server:
        tenant = await register(server, "acme")
        first = await begin(server, tenant, server.channel)
        another = server.storage.Put(timeout=TIMEOUT)
        await another.write(header(tenant, "another"))
        told = await failure(another.read())
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "retry")
        assert told.details == {"google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.QuotaFailure"}
        first.cancel()
        await expect_nothing_left(server, tenant)
