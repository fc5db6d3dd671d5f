"""What a Put does while it runs: fails at once, believes nothing, and stays alive."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import google_crc32c
import grpc
import pytest

from client.content import noise
from client.scripted import MIB, Context, ScriptedServer, fail
from keystow.v1 import storage_pb2 as pb
from keystow_client import (
    NO_RETRIES,
    AsyncClient,
    IncompleteError,
    IntegrityError,
    KeystowError,
    OwnThread,
    TransportError,
    is_object_not_found,
)

Code = grpc.StatusCode
BIG = noise(3 * MIB + 7)


def result(size: int, data: bytes, *, sha256: bytes = b"") -> pb.PutResponse:
    """A PutResult for these bytes."""
    info = pb.ObjectInfo(tenant_id="acme", key="k", version_id="v1", size=size, sha256=sha256)
    info.crc32c = google_crc32c.value(data)
    return pb.PutResponse(result=pb.PutResult(object=info))


async def endless(taken: list[int]) -> AsyncIterator[bytes]:
    """A source that never ends, and counts what is taken from it."""
    while True:
        taken[0] += 1
        yield bytes(MIB)


async def test_an_early_failure_ends_the_sending(client: AsyncClient, server: ScriptedServer) -> None:
    """A refusal surfaces though the source has no end, even if the server reads nothing."""
    server.storage.next("Put", fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"))
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "k", endless([0]))
    assert failure.value.reason == "KMS_KEY_DISABLED"


async def test_the_servers_reason_survives_every_race(server: ScriptedServer) -> None:
    """Writing to a call that the server has just ended makes grpc.aio invent a status: it never covers the real one."""
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        for _ in range(100):
            server.storage.next("Put", fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"))
            with pytest.raises(KeystowError) as failure:
                await client.put("acme", "k", BIG)
            assert failure.value.reason == "KMS_KEY_DISABLED"


async def test_an_early_failure_does_not_wait_for_the_source(client: AsyncClient, server: ScriptedServer) -> None:
    """A refusal surfaces while the source is still thinking."""
    forever = asyncio.Event()

    async def thinking() -> AsyncIterator[bytes]:
        yield bytes(2 * MIB)
        await forever.wait()

    server.storage.next("Put", fail(Code.ALREADY_EXISTS, "OBJECT_EXISTS", "none"))
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "k", thinking())
    assert failure.value.reason == "OBJECT_EXISTS"


async def test_a_blocked_read_does_not_hold_a_failure_back(client: AsyncClient, server: ScriptedServer) -> None:
    """Nor does a file object whose read never returns."""
    release = threading.Event()

    class Blocked:
        chunks = 2

        def read(self, size: int) -> bytes:
            if self.chunks:
                self.chunks -= 1
                return bytes(size)
            release.wait()
            return b""

    server.storage.next("Put", fail(Code.ALREADY_EXISTS, "OBJECT_EXISTS", "none"))
    try:
        with pytest.raises(KeystowError):
            await client.put("acme", "k", Blocked())
    finally:
        release.set()


async def test_an_early_result_is_believed_after_reading_on(client: AsyncClient, server: ScriptedServer) -> None:
    """A repeated upload may be answered at once: the rest of the source is then compared, not sent."""

    async def step(_: Any, context: Context) -> None:
        await context.read()
        await context.write(result(len(BIG), BIG))

    for _ in range(100):
        server.storage.next("Put", step)
        assert (await client.put("acme", "k", BIG, upload_id="again")).version_id == "v1"
    assert len(server.storage.requests["Put"]) == 100

    server.storage.next("Put", step)
    with pytest.raises(IntegrityError):
        await client.put("acme", "k", BIG[:-1] + b"?", upload_id="again")


@pytest.mark.parametrize(
    "answer",
    [
        result(len(BIG) + 1, BIG),
        result(len(BIG), BIG[1:]),
        pb.PutResponse(result=pb.PutResult(object=pb.ObjectInfo(size=len(BIG)))),
    ],
    ids=["size", "checksum", "no checksum"],
)
async def test_a_result_for_other_bytes_is_an_error(
    client: AsyncClient, server: ScriptedServer, answer: pb.PutResponse
) -> None:
    """OK is not enough: the server must have stored what was sent."""

    async def step(_: Any, context: Context) -> None:
        while not (await context.read()).HasField("finish"):
            pass
        await context.write(answer)

    server.storage.next("Put", step)
    with pytest.raises(IntegrityError, match="other bytes"):
        await client.put("acme", "k", BIG)
    assert len(server.storage.requests["Put"]) == 1


async def test_a_small_result_for_other_bytes_is_an_error(client: AsyncClient, server: ScriptedServer) -> None:
    """The same holds for objects of one message."""

    async def step(_: Any, __: Context) -> pb.PutSmallResponse:
        return pb.PutSmallResponse(object=result(4, b"what").result.object)

    server.storage.next("PutSmall", step)
    with pytest.raises(IntegrityError):
        await client.put("acme", "k", b"that")


async def test_a_wrong_sha256_is_an_error(client: AsyncClient, server: ScriptedServer) -> None:
    """Where SHA-256 was asked for, it must come back right."""

    async def step(_: Any, context: Context) -> None:
        while not (await context.read()).HasField("finish"):
            pass
        await context.write(result(4, b"that", sha256=hashlib.sha256(b"what").digest()))

    server.storage.next("Put", step)
    with pytest.raises(IntegrityError):
        await client.put("acme", "k", b"that", verify_sha256=True)


async def test_a_stream_without_a_result_is_incomplete(server: ScriptedServer) -> None:
    """A server that ends well and says nothing has stored nothing, as far as anyone knows."""

    async def step(_: Any, context: Context) -> None:
        while not (await context.read()).HasField("finish"):
            pass

    server.storage.next("Put", step)
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        with pytest.raises(IncompleteError):
            await client.put("acme", "k", BIG)


async def test_progress_messages_are_read_and_dropped(client: AsyncClient, server: ScriptedServer) -> None:
    """UploadProgress is not a result, and may come at any time."""

    async def step(_: Any, context: Context) -> None:
        await context.write(pb.PutResponse(progress=pb.UploadProgress()))
        while not (await context.read()).HasField("finish"):
            await context.write(pb.PutResponse(progress=pb.UploadProgress(persisted_size=1)))
        await context.write(result(len(BIG), BIG))

    server.storage.next("Put", step)
    await client.put("acme", "k", BIG)


async def test_a_slow_source_keeps_its_stream_alive(server: ScriptedServer) -> None:
    """While the source has nothing, empty chunks at the next offset show that somebody is there."""
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()
    empty: list[pb.Chunk] = []

    async def slow() -> AsyncIterator[bytes]:
        yield BIG[: 2 * MIB]
        await seen.wait()
        yield BIG[2 * MIB :]

    async def step(request: Any, context: Context) -> None:
        class Watching:
            write = context.write
            abort = context.abort

            async def read(self) -> pb.PutRequest:
                message: pb.PutRequest = await context.read()
                if message.HasField("chunk") and not message.chunk.data:
                    empty.append(message.chunk)
                    loop.call_soon_threadsafe(seen.set)
                return message

        await server.storage.put(request, Watching())  # type: ignore[arg-type]

    server.storage.next("Put", step)
    async with AsyncClient(server.address, retry=NO_RETRIES, stall_timeout=10) as client:
        await client.put("acme", "k", slow())
    assert server.storage.objects["acme", "k"].data == BIG
    assert {chunk.offset for chunk in empty} == {2 * MIB}


@pytest.mark.parametrize("reads", [0, 2, 99])
async def test_a_silent_server_is_given_up(server: ScriptedServer, reads: int) -> None:
    """A server that takes or answers nothing more counts as lost, wherever it fell silent."""
    released = asyncio.Event()

    async def step(_: Any, context: Context) -> None:
        for _ in range(reads):
            if (await context.read()).HasField("finish"):
                break
        await released.wait()

    server.storage.next("Put", step)
    async with AsyncClient(server.address, retry=NO_RETRIES, stall_timeout=0.5) as client:
        with pytest.raises(TransportError, match="silent"):
            await client.put("acme", "k", BIG * 20)


async def test_a_silent_download_is_given_up(server: ScriptedServer) -> None:
    """The same for a Get and for a simple call."""

    async def step(_: Any, __: Context) -> None:
        await asyncio.Event().wait()

    server.storage.next("Get", step)
    server.storage.next("Stat", step)
    async with AsyncClient(server.address, retry=NO_RETRIES, stall_timeout=0.2) as client:
        with pytest.raises(TransportError):
            await client.get("acme", "k")
        with pytest.raises(TransportError):
            await client.stat("acme", "k")


async def test_cancelling_a_put_stops_it(client: AsyncClient, server: ScriptedServer) -> None:
    """Cancelling the caller ends the stream on the server, and leaves no task behind."""
    running, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def step(_: Any, context: Context) -> None:
        try:
            await context.read()
            loop.call_soon_threadsafe(running.set)
            while (await context.read()) is not grpc.aio.EOF:
                pass
        finally:
            loop.call_soon_threadsafe(ended.set)

    server.storage.next("Put", step)
    before = asyncio.all_tasks()
    put = asyncio.create_task(client.put("acme", "k", endless([0])))
    await running.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    await ended.wait()
    assert asyncio.all_tasks() == before


async def test_a_download_can_be_left_early(client: AsyncClient, server: ScriptedServer) -> None:
    """Leaving the context ends the call on the server."""
    await client.put("acme", "k", BIG * 20)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def step(request: pb.GetRequest, context: Context) -> None:
        try:
            await server.storage.get(request, context)
        finally:
            loop.call_soon_threadsafe(ended.set)

    server.storage.next("Get", step)
    async with await client.get("acme", "k") as download:
        await anext(download)
    await ended.wait()


async def test_an_object_can_be_copied_through_the_client(client: AsyncClient, server: ScriptedServer) -> None:
    """A download is a source like any other."""
    await client.put("acme", "k", BIG)
    async with await client.get("acme", "k") as download:
        await client.put("other", "k", download, size=download.length)
    assert server.storage.objects["other", "k"].data == BIG


async def test_transfers_run_side_by_side_on_one_thread_of_their_own(client: AsyncClient) -> None:
    """Many transfers share a client, and may share the thread that reads for them."""
    with OwnThread() as thread:
        infos = await asyncio.gather(*(client.put("acme", f"k{n}", iter([BIG[n:]]), thread=thread) for n in range(10)))
    assert [info.size for info in infos] == [len(BIG) - n for n in range(10)]
    with pytest.raises(KeystowError) as failure:
        await client.get("acme", "none")
    assert is_object_not_found(failure.value)
