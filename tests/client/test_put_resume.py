"""A broken Put goes on from the last byte that the service has for sure, and the object is as if it had not broken."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.conftest import PATIENT
from client.content import noise
from client.relay import Relay
from client.scripted import MIB, Context, ScriptedServer, Step, fail
from keystow.v1 import storage_pb2 as pb
from keystow_client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    IncompleteError,
    IntegrityError,
    KeystowError,
    SourceChangedError,
    TransportError,
    UploadProgress,
)

Code = grpc.StatusCode
BIG = noise(5 * MIB + 7)
CHUNKS = 6

STALLED = fail(Code.DEADLINE_EXCEEDED, "STREAM_STALLED", "resume")
STOPPING = fail(Code.UNAVAILABLE, "SHUTTING_DOWN", "retry")
EXPIRED = fail(Code.ABORTED, "UPLOAD_EXPIRED", "restart")
SUPERSEDED = fail(Code.ABORTED, "UPLOAD_SUPERSEDED", "none")
DISABLED = fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait")


class _GoneError(Exception):
    """The scripted end of a stream."""


def cut(server: ScriptedServer, messages: int, ending: Step | None = None, *, answer_lost: bool = False) -> Step:
    """An honest Put that ends after so many messages: by default well, so that nothing the server said is lost."""

    async def step(_: Any, context: Context) -> None:
        class Cut:
            abort = context.abort
            left = messages

            async def read(self) -> Any:
                if not self.left:
                    raise _GoneError
                request = await context.read()
                if not request.HasField("chunk") or request.chunk.data:  # an empty one only says that somebody is there
                    self.left -= 1
                return request

            async def write(self, response: pb.PutResponse) -> None:
                if answer_lost and response.HasField("result"):
                    raise _GoneError
                await context.write(response)

        try:
            await server.storage.put(None, Cut())  # type: ignore[arg-type]
        except _GoneError:
            if ending is not None:
                await ending(None, context)

    return step


class Once:
    """Hands out bytes once, and counts them."""

    def __init__(self, data: bytes, piece: int = MIB) -> None:
        self.taken = 0
        self._data = data
        self._piece = piece

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._data[self.taken : self.taken + self._piece]:
            self.taken += len(piece)
            yield piece

    async def run(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


KINDS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "file object": io.BytesIO,
    "collection": lambda data: [data[:100_000], data[100_000:]],
    "iterator": lambda data: iter(Once(data, 300_000)),
    "async iterator": lambda data: Once(data, 300_000).run(),
}


@pytest.mark.parametrize("part_size", [MIB, 700_001])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_put_goes_on_after_any_message(
    client: AsyncClient, server: ScriptedServer, kind: str, part_size: int
) -> None:
    """Wherever the stream ends, the next one has the token alone, and begins with the byte that is not persisted."""
    server.storage.part_size = part_size
    for messages in range(1, CHUNKS + 2):
        server.storage.requests.clear()
        server.storage.next("Put", cut(server, messages))
        key = f"k{messages}"
        info = await client.put("acme", key, KINDS[kind](BIG), resumable=True, content_type="a/b")
        assert server.storage.objects["acme", key].data == BIG
        assert info.content_type == "a/b"
        first, second = server.storage.requests["header"]
        persisted = max(0, min(len(BIG), (messages - 1) * MIB) - 1) // part_size * part_size
        assert second.resume_token == f"{first.upload_id}@{persisted}".encode()
        assert server.storage.requests["chunk"][messages - 1][0] == persisted
        assert len(server.storage.requests["finish"]) == 1
    assert not server.storage.uploads


@pytest.mark.parametrize("ending", [STALLED, STOPPING, fail(Code.OUT_OF_RANGE, "OFFSET_MISMATCH", "resume")])
async def test_what_the_service_says_helps_is_done(client: AsyncClient, server: ScriptedServer, ending: Step) -> None:
    """Resume and retry both go on with the upload."""
    server.storage.next("Put", cut(server, 4, ending), cut(server, 2, ending))
    await client.put("acme", "k", iter(Once(BIG)))
    assert server.storage.objects["acme", "k"].data == BIG
    tokens = [header.resume_token for header in server.storage.requests["header"]]
    assert (len(tokens), tokens[0]) == (3, b"")
    assert all(tokens[1:])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_answer_is_asked_for_again(client: AsyncClient, server: ScriptedServer, kind: str) -> None:
    """A committed upload is answered with its result; nothing is stored twice, and hardly anything sent."""
    server.storage.next("Put", cut(server, CHUNKS + 2, answer_lost=True))
    info = await client.put("acme", "k", KINDS[kind](BIG), resumable=True)
    assert (info.version_id, server.storage.versions) == ("v1", 1)
    assert server.storage.requests["chunk"][CHUNKS:] == [(5 * MIB, 7, True)]


async def test_progress_renews_the_patience(client: AsyncClient, server: ScriptedServer) -> None:
    """A Put that gets on may break more often than it may fail in a row."""
    data = noise(12 * MIB)
    server.storage.next("Put", *[cut(server, 3)] * 11)
    await client.put("acme", "k", iter(Once(data)))
    assert server.storage.objects["acme", "k"].data == data
    assert len(server.storage.requests["Put"]) == 12


async def test_failures_in_a_row_are_bounded(client: AsyncClient, server: ScriptedServer) -> None:
    """Where nothing gets on any more the last failure is raised, and what was uploaded is discarded."""
    server.storage.next("Put", cut(server, 4), *[cut(server, 1)] * 9)
    with pytest.raises(IncompleteError) as failure:
        await client.put("acme", "k", BIG, resumable=True)
    assert failure.value.attempts == 6
    assert not server.storage.uploads
    (request,) = server.storage.requests["AbortPut"]
    assert request.resume_token == f"{request.upload_id}@{2 * MIB}".encode()


async def test_only_what_can_begin_anew_does(client: AsyncClient, server: ScriptedServer) -> None:
    """An expired upload is begun again from the first byte; where that is gone, the caller is told."""
    server.storage.next("Put", cut(server, 4), EXPIRED)
    await client.put("acme", "k", BIG, resumable=True)
    assert server.storage.objects["acme", "k"].data == BIG
    assert [bool(header.resume_token) for header in server.storage.requests["header"]] == [False, False]
    server.storage.next("Put", cut(server, 4), EXPIRED)
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "l", iter(Once(BIG)))
    assert failure.value.reason == "UPLOAD_EXPIRED"


async def test_an_upload_that_cannot_begin_anew_is_kept_for_who_can(
    client: AsyncClient, server: ScriptedServer
) -> None:
    """Where its progress was told, and its source is gone, another process may yet go on with it."""
    damaged = fail(Code.INVALID_ARGUMENT, "CHECKSUM_MISMATCH", "restart")
    server.storage.next("Put", cut(server, 4), damaged)
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "k", iter(Once(BIG)), resumable=True, on_upload_progress=lambda _: None)
    assert failure.value.reason == "CHECKSUM_MISMATCH"
    assert not server.storage.requests["AbortPut"]


async def test_an_upload_that_another_owns_is_left_alone(client: AsyncClient, server: ScriptedServer) -> None:
    """Where somebody else may know the upload, UPLOAD_SUPERSEDED is raised at once, and it is not discarded."""
    server.storage.next("Put", cut(server, 4), SUPERSEDED)
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "k", BIG, resumable=True, on_upload_progress=lambda _: None)
    assert (failure.value.reason, failure.value.attempts) == ("UPLOAD_SUPERSEDED", 2)
    assert not server.storage.requests["AbortPut"]


async def test_an_upload_that_nobody_else_knows_is_begun_anew(client: AsyncClient, server: ScriptedServer) -> None:
    """Then it was a part of its own broken stream that arrived late, and took a newer one's place."""
    server.storage.next("Put", cut(server, 4), SUPERSEDED)
    await client.put("acme", "k", BIG, resumable=True)
    assert server.storage.objects["acme", "k"].data == BIG
    assert not server.storage.uploads


async def test_a_changed_file_is_not_continued(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """Bytes of two states of a file never meet in one object."""
    path = tmp_path / "source"
    path.write_bytes(BIG)

    async def step(request: Any, context: Context) -> None:
        await cut(server, 4)(request, context)
        path.write_bytes(BIG[::-1])

    server.storage.next("Put", step)
    with pytest.raises(SourceChangedError, match="changed"):
        await client.put("acme", "k", path, resumable=True)
    assert not server.storage.objects
    assert not server.storage.uploads


@pytest.mark.parametrize("cuts", [[("sent", 1)], [("sent", 3 * MIB), ("sent", 2 * MIB), ("got", 1), ("got", 300)]])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_broken_connection_is_overcome(
    relayed: AsyncClient, relay: Relay, server: ScriptedServer, kind: str, cuts: list[tuple[str, int]]
) -> None:
    """Connections that are reset cost only what was in flight."""
    relay.cuts.extend(cuts)
    await relayed.put("acme", "k", KINDS[kind](BIG), resumable=True)
    assert server.storage.objects["acme", "k"].data == BIG
    assert server.storage.versions == 1


async def test_who_is_resumable(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """Large objects and those of unknown size are, unless told otherwise; SHA-256 excludes it."""
    path = tmp_path / "source"
    path.write_bytes(bytes(16 * MIB + 1))
    await client.put("acme", "a", path)
    await client.put("acme", "b", iter([BIG]))
    await client.put("acme", "c", BIG, resumable=True)
    await client.put("acme", "d", BIG)
    await client.put("acme", "e", path, resumable=False)
    await client.put("acme", "f", iter([BIG]), verify_sha256=True)
    assert [header.resumable for header in server.storage.requests["header"]] == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match="excludes"):
        await client.put("acme", "g", BIG, verify_sha256=True, resumable=True)


async def test_a_server_that_cannot_resume_gets_an_ordinary_put(client: AsyncClient, server: ScriptedServer) -> None:
    """The client's own choice gives way, a wish of the caller's does not."""
    refused = fail(Code.UNIMPLEMENTED, "NOT_IMPLEMENTED", "none")
    server.storage.next("Put", refused)
    await client.put("acme", "k", iter(Once(BIG)))
    assert server.storage.objects["acme", "k"].data == BIG
    assert not server.storage.requests["header"][-1].resumable
    server.storage.next("Put", refused)
    with pytest.raises(KeystowError):
        await client.put("acme", "l", BIG, resumable=True)


async def test_progress_is_of_the_source(client: AsyncClient, server: ScriptedServer) -> None:
    """The callback hears places in the source, so that nothing counts twice, and ends with the size."""
    heard: list[int] = []
    server.storage.next("Put", cut(server, 4))
    await client.put("acme", "k", BIG, resumable=True, progress=heard.append)
    again = heard.index(3 * MIB, heard.index(3 * MIB) + 1)
    assert heard[again:] == [3 * MIB, 4 * MIB, 5 * MIB, 5 * MIB + 7]


async def test_a_claim_to_have_more_than_was_sent_is_an_error(client: AsyncClient, server: ScriptedServer) -> None:
    """Such a server would make the client skip bytes."""

    async def step(_: Any, context: Context) -> None:
        await context.read()
        progress = pb.UploadProgress(persisted_size=99 * MIB, resume_token=b"t")
        await context.write(pb.PutResponse(progress=progress))
        await asyncio.Event().wait()

    server.storage.next("Put", step)
    with pytest.raises(IntegrityError):
        await client.put("acme", "k", BIG, resumable=True)


@pytest.mark.parametrize("failure", [TransportError("the source's", recovery="retry"), OSError("disk gone")])  # type: ignore[arg-type]
async def test_a_source_that_fails_is_not_asked_again(
    client: AsyncClient, server: ScriptedServer, failure: Exception
) -> None:
    """Its failure is the caller's, even one that would help a call: what an iterator had left is unknown."""

    def failing() -> Iterator[bytes]:
        yield BIG
        raise failure

    with pytest.raises(type(failure)) as raised:
        await client.put("acme", "k", failing())
    assert raised.value is failure
    assert len(server.storage.requests["Put"]) == 1
    assert not server.storage.objects


# --- What comes only once ---------------------------------------------------------------------------------------------


async def test_at_the_bound_nothing_more_is_taken(server: ScriptedServer) -> None:
    """An iterator is read no further than the buffer reaches, until the service has more for sure."""
    source = Once(BIG)
    server.storage.part_size = 99 * MIB
    seen: list[tuple[int, int]] = []

    async def step(request: Any, context: Context) -> None:
        class Watching:
            write = context.write
            abort = context.abort

            async def read(self) -> pb.PutRequest:
                message: pb.PutRequest = await context.read()
                if message.HasField("chunk") and not message.chunk.data and not seen:
                    seen.append((message.chunk.offset, source.taken))
                    server.storage.part_size = MIB
                return message

        await server.storage.put(request, Watching())  # type: ignore[arg-type]

    server.storage.next("Put", step)
    async with AsyncClient(server.address, retry=NO_RETRIES, stall_timeout=60) as client:
        await client.put("acme", "k", iter(source), resume_buffer=3 * MIB)
    assert seen == [(3 * MIB, 3 * MIB)]
    assert server.storage.objects["acme", "k"].data == BIG


async def test_without_progress_the_bound_is_kept_and_the_put_goes_on(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that reports nothing gets everything all the same; but then a failure is final, and was announced."""
    server.storage.part_size = 99 * MIB
    async with AsyncClient(server.address, retry=PATIENT, stall_timeout=8) as client:
        with caplog.at_level(logging.WARNING, "keystow_client"):
            await client.put("acme", "k", iter(Once(BIG)), resume_buffer=2 * MIB)
        assert server.storage.objects["acme", "k"].data == BIG
        assert caplog.text.count("cannot be continued") == 1
        server.storage.next("Put", cut(server, 5))
        with pytest.raises(IncompleteError) as failure:
            await client.put("acme", "l", iter(Once(BIG)), resume_buffer=2 * MIB)
    assert failure.value.attempts == 1


@pytest.mark.parametrize("kind", ["iterator", "async iterator"])
async def test_a_source_in_thought_is_not_disturbed(client: AsyncClient, server: ScriptedServer, kind: str) -> None:
    """What an iterator is about to give when the connection breaks is not lost with it."""
    broken = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def step(request: Any, context: Context) -> None:
        await cut(server, 3)(request, context)
        loop.call_soon_threadsafe(broken.set)

    async def thinking() -> AsyncIterator[bytes]:
        yield BIG[: 2 * MIB]
        await broken.wait()
        yield BIG[2 * MIB :]

    def blocking() -> Iterator[bytes]:
        yield BIG[: 2 * MIB]
        asyncio.run_coroutine_threadsafe(broken.wait(), loop).result()
        yield BIG[2 * MIB :]

    server.storage.next("Put", step)
    await client.put("acme", "k", thinking() if kind == "async iterator" else blocking())
    assert server.storage.objects["acme", "k"].data == BIG
    assert len(server.storage.requests["Put"]) == 2


def test_the_synchronous_client_goes_on_too(sync_client: Client, server: ScriptedServer) -> None:
    """The same in ordinary code, with a generator of the calling thread's."""
    heard: list[UploadProgress] = []
    server.storage.next("Put", cut(server, 4), cut(server, 3))
    sync_client.put("acme", "k", iter(Once(BIG)), on_upload_progress=heard.append)
    assert server.storage.objects["acme", "k"].data == BIG
    assert heard[0].persisted_size == 0
    assert heard[-1].persisted_size == 5 * MIB


# --- In another process -----------------------------------------------------------------------------------------------


async def interrupted(server: ScriptedServer, source: Any) -> UploadProgress:
    """What is known of an upload that broke after 4 MiB."""
    heard: list[UploadProgress] = []
    server.storage.next("Put", cut(server, 5))
    async with AsyncClient(server.address, retry=NO_RETRIES) as client:
        with pytest.raises(IncompleteError):
            await client.put("acme", "k", source, resumable=True, on_upload_progress=heard.append)
    assert not server.storage.requests["AbortPut"]
    return heard[-1]


async def test_another_process_goes_on(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """With the last progress and the same source, nothing that is persisted is sent again."""
    path = tmp_path / "source"
    path.write_bytes(BIG)
    progress = await interrupted(server, path)
    assert progress.persisted_size == 3 * MIB
    assert progress.expire_time is not None
    await client.put("acme", "k", path, resume_from=progress)
    stored = server.storage.objects["acme", "k"]
    assert (stored.data, stored.upload_id) == (BIG, progress.upload_id)
    assert server.storage.requests["chunk"][4:] == [(3 * MIB, MIB, True), (4 * MIB, MIB, True), (5 * MIB, 7, True)]


async def test_a_token_of_another_server_is_not_given_up(client: AsyncClient, server: ScriptedServer) -> None:
    """Whoever gave it decides whether to begin anew; nothing is discarded meanwhile."""
    progress = await interrupted(server, BIG)
    puts = len(server.storage.requests["Put"])
    server.storage.next("Put", STOPPING, fail(Code.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID", "restart"))
    with pytest.raises(KeystowError) as failure:
        await client.put("acme", "k", BIG, resume_from=progress)
    assert (failure.value.reason, failure.value.attempts) == ("RESUME_TOKEN_INVALID", 2)
    assert len(server.storage.requests["Put"]) == puts + 2
    assert not server.storage.requests["AbortPut"]
    await client.put("acme", "k", BIG, resume_from=progress)
    assert server.storage.objects["acme", "k"].data == BIG


@pytest.mark.parametrize("source", [b"?" + BIG[1:], BIG[: 2 * MIB]], ids=["other bytes", "too short"])
async def test_another_source_is_found_out_before_anything_is_sent(
    client: AsyncClient, server: ScriptedServer, source: bytes
) -> None:
    """The bytes that were uploaded are compared with the source that is to give the rest."""
    progress = await interrupted(server, BIG)
    with pytest.raises(SourceChangedError, match="from the beginning"):
        await client.put("acme", "k", source, resume_from=progress)
    assert len(server.storage.requests["Put"]) == 1
    assert progress.upload_id in server.storage.uploads


async def test_an_upload_can_be_discarded(client: AsyncClient, server: ScriptedServer) -> None:
    """abort_put ends it, as often as one likes; going on then begins anew."""
    progress = await interrupted(server, BIG)
    await client.abort_put("acme", "k", progress)
    await client.abort_put("acme", "k", progress)
    assert not server.storage.uploads
    await client.put("acme", "k", BIG, resume_from=progress)
    assert server.storage.objects["acme", "k"].data == BIG


@pytest.mark.parametrize("ending", [DISABLED, fail(Code.INTERNAL, "SOMETHING_NEW", "none")])
async def test_a_failure_for_good_leaves_nothing_behind(
    client: AsyncClient, server: ScriptedServer, ending: Step
) -> None:
    """Where nobody can go on, the service need not keep anything."""
    server.storage.next("Put", cut(server, 4, ending))
    with pytest.raises(KeystowError):
        await client.put("acme", "k", BIG, resumable=True)
    assert not server.storage.uploads


async def test_cancelling_leaves_nothing_behind(client: AsyncClient, server: ScriptedServer) -> None:
    """Nor need it after a cancellation."""
    loop = asyncio.get_running_loop()
    running = asyncio.Event()

    async def step(request: Any, context: Context) -> None:
        await cut(server, 4)(request, context)
        loop.call_soon_threadsafe(running.set)
        await asyncio.Event().wait()

    server.storage.next("Put", step)
    put = asyncio.create_task(client.put("acme", "k", BIG, resumable=True))
    await running.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert not server.storage.uploads
