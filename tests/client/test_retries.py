"""A call is repeated when its failure says that helps, as often as the policy allows, and never where it could hurt."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as rich

from client.conftest import FAST, PATIENT
from client.content import names, noise
from client.relay import Relay
from client.scripted import MIB, Context, ScriptedServer, answer_get, fail, fail_bare, get_responses
from keystow.v1 import storage_pb2 as pb
from keystow_client import (
    AsyncClient,
    KeystowError,
    NotFoundError,
    RetryPolicy,
    TransportError,
    UnavailableError,
    WriteMode,
)

Code = grpc.StatusCode
BIG = noise(3 * MIB + 7)

BUSY = fail(Code.UNAVAILABLE, "STORE_UNAVAILABLE", "retry")
LOST = fail_bare(Code.UNAVAILABLE)
CANCELLED = fail_bare(Code.CANCELLED)
CONFLICT = fail(Code.ABORTED, "WRITE_CONFLICT", "restart")
STALLED = fail(Code.DEADLINE_EXCEEDED, "STREAM_STALLED", "resume")
DISABLED = fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait")
DAMAGED = fail(Code.DATA_LOSS, "OBJECT_TAMPERED", "none")


async def after_commit(server: ScriptedServer, context: Context) -> None:
    """An honest Put whose answer is lost."""

    class Deaf:
        read = context.read
        abort = context.abort

        async def write(self, _: Any) -> None:
            await context.abort(Code.UNAVAILABLE, "connection reset")

    await server.storage.put(None, Deaf())  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [BUSY, LOST, CANCELLED], ids=["busy", "lost", "cancelled"])
async def test_a_simple_call_is_repeated(client: AsyncClient, server: ScriptedServer, step: Any) -> None:
    """Retry, loss of transport and a CANCELLED from elsewhere are overcome."""
    await client.put("acme", "k", b"data")
    server.storage.next("Stat", step, step)
    assert (await client.stat("acme", "k")).size == 4
    assert len(server.storage.requests["Stat"]) == 3


@pytest.mark.parametrize("step", [DISABLED, DAMAGED, CONFLICT], ids=["wait", "none", "restart"])
async def test_a_simple_call_is_not_repeated_in_vain(client: AsyncClient, server: ScriptedServer, step: Any) -> None:
    """Where somebody must act first, nothing helps, or only another call would, the failure comes at once."""
    server.storage.next("Stat", step)
    with pytest.raises(KeystowError) as failure:
        await client.stat("acme", "k")
    assert failure.value.attempts == 1
    assert len(server.storage.requests["Stat"]) == 1


async def test_attempts_are_bounded(server: ScriptedServer) -> None:
    """After max_attempts the last failure is raised, and says how many there were."""
    server.storage.next("Stat", *[BUSY] * 9)
    async with AsyncClient(server.address, retry=RetryPolicy(max_attempts=3, initial_delay=0.001)) as client:
        with pytest.raises(UnavailableError) as failure:
            await client.stat("acme", "k")
    assert failure.value.attempts == 3
    assert len(server.storage.requests["Stat"]) == 3


async def test_total_time_is_bounded(server: ScriptedServer) -> None:
    """A pause that would end too late is not begun, the server's own wish included."""
    server.storage.next(
        "Stat", *[fail(Code.UNAVAILABLE, "X", "retry", rich.RetryInfo(retry_delay=Duration(seconds=31)))]
    )
    async with AsyncClient(server.address, retry=FAST) as client:
        with pytest.raises(UnavailableError) as failure:
            await client.stat("acme", "k")
    assert failure.value.attempts == 1


async def test_the_servers_delay_is_kept(server: ScriptedServer) -> None:
    """RetryInfo is waited for in full, though the policy's own pauses are shorter."""
    delay = rich.RetryInfo(retry_delay=Duration(nanos=200_000_000))
    server.storage.next("Stat", fail(Code.UNAVAILABLE, "X", "retry", delay))
    loop = asyncio.get_running_loop()
    async with AsyncClient(server.address, retry=FAST) as client:
        await client.put("acme", "k", b"data")
        begun = loop.time()
        await client.stat("acme", "k")
    assert loop.time() - begun >= 0.2


def test_pauses_grow_are_jittered_and_capped() -> None:
    """The nth pause is half to all of a doubling delay, never over the cap, however large n is."""
    policy = RetryPolicy(initial_delay=1, max_delay=10)
    for failures, ceiling in ((1, 1), (2, 2), (4, 8), (5, 10), (5000, 10)):
        pauses = {policy.delay(failures, None) for _ in range(100)}
        assert len(pauses) > 1
        assert all(ceiling / 2 <= pause <= ceiling for pause in pauses)


async def test_retries_are_logged(
    client: AsyncClient, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each pause is announced on the library's logger."""
    await client.put("acme", "k", b"data")
    server.storage.next("Stat", BUSY)
    with caplog.at_level(logging.WARNING, "keystow_client"):
        await client.stat("acme", "k")
    assert "STORE_UNAVAILABLE" in caplog.text
    assert "trying again in" in caplog.text


# --- Put --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [BUSY, LOST, CANCELLED, CONFLICT, STALLED])
@pytest.mark.parametrize("size", [10, len(BIG)])
async def test_a_put_starts_anew_under_the_same_id(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, step: Any, size: int
) -> None:
    """Bytes, paths, files and collections are sent again from their start, with the upload_id of the first attempt."""
    data = BIG[:size]
    path = tmp_path / "source"
    path.write_bytes(data)
    for number, source in enumerate((data, path, io.BytesIO(data), [data])):
        server.storage.next("PutSmall" if size < MIB else "Put", step, step)
        await client.put("acme", f"k{number}", source)  # type: ignore[arg-type]
        assert server.storage.objects["acme", f"k{number}"].data == data
    if size < MIB:
        ids = [request.header.upload_id for request in server.storage.requests["PutSmall"]]
        assert len(ids) == 12
        assert len(set(ids)) == 4


@pytest.mark.parametrize("mode", list(WriteMode))
async def test_a_lost_answer_stores_nothing_twice(client: AsyncClient, server: ScriptedServer, mode: WriteMode) -> None:
    """The repeated Put of a committed upload is answered with that upload."""
    server.storage.next("Put", lambda _, context: after_commit(server, context))
    info = await client.put("acme", "k", BIG, mode=mode)
    assert info.version_id == "v1"
    assert server.storage.versions == 1
    assert len({header.upload_id for header in server.storage.requests["header"]}) == 1


def one_shot(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def async_one_shot(data: bytes) -> AsyncIterator[bytes]:
    for piece in one_shot(data):
        yield piece


@pytest.mark.parametrize("source", [one_shot, async_one_shot])
async def test_what_cannot_rewind_is_not_sent_again(
    client: AsyncClient, server: ScriptedServer, source: Callable[[bytes], Any]
) -> None:
    """Once bytes were taken that nobody holds, the failure is the caller's."""

    async def step(_: Any, context: Context) -> None:
        for _ in range(3):
            await context.read()
        await context.abort(Code.UNAVAILABLE, "gone")

    server.storage.next("Put", step)
    with pytest.raises(TransportError) as failure:
        await client.put("acme", "k", source(BIG), resumable=False)
    assert failure.value.attempts == 1
    assert not server.storage.objects


@pytest.mark.parametrize("source", [one_shot, async_one_shot])
async def test_a_short_iterator_is_kept_for_a_retry(
    client: AsyncClient, server: ScriptedServer, source: Callable[[bytes], Any]
) -> None:
    """What fits into one message is in memory anyway, and sent again."""
    server.storage.next("PutSmall", BUSY, LOST)
    await client.put("acme", "k", source(BIG[:1000]))
    assert server.storage.objects["acme", "k"].data == BIG[:1000]


async def test_a_server_that_is_not_there_yet_loses_no_iterator(server: ScriptedServer) -> None:
    """An iterator is not used up by attempts that never reached a server."""
    with Relay(server.port) as relay:
        relay.cuts.extend([("refused", 0)] * 2)
        async with AsyncClient(relay.address, retry=PATIENT) as client:
            await client.put("acme", "k", one_shot(BIG))
    assert server.storage.objects["acme", "k"].data == BIG


@pytest.mark.parametrize("cut", [("sent", 1), ("sent", 100_000), ("sent", 2 * MIB), ("got", 1)])
async def test_a_broken_connection_is_overcome(
    relayed: AsyncClient, relay: Relay, server: ScriptedServer, tmp_path: Path, cut: tuple[str, int]
) -> None:
    """A Put whose connection is reset anywhere is repeated, and stored once."""
    relay.cuts.append(cut)
    path = tmp_path / "source"
    path.write_bytes(BIG)
    await relayed.put("acme", "k", path)
    assert relay.connections >= 2  # gRPC itself connects once more where it was cut while it began
    assert server.storage.objects["acme", "k"].data == BIG


# --- Get --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [BUSY, LOST, CANCELLED, STALLED, answer_get()])
async def test_a_get_starts_anew(client: AsyncClient, server: ScriptedServer, tmp_path: Path, step: Any) -> None:
    """Iterators that have not begun, paths and files are served at the next attempt."""
    await client.put("acme", "k", BIG)
    server.storage.next("Get", step, step)
    assert b"".join([chunk async for chunk in await client.get("acme", "k")]) == BIG
    server.storage.next("Get", step, step)
    await client.get("acme", "k", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == BIG
    server.storage.next("Get", step, step)
    buffer = io.BytesIO()
    await client.get("acme", "k", buffer)
    assert buffer.getvalue() == BIG


@pytest.mark.parametrize("got", [1, 100_000, 2 * MIB])
async def test_a_broken_download_to_a_path_is_overcome(
    relayed: AsyncClient, relay: Relay, tmp_path: Path, got: int
) -> None:
    """The temporary file is begun again, and nothing of the first attempt is left."""
    await relayed.put("acme", "k", BIG)
    relay.cuts.append(("got", got))
    async with AsyncClient(relay.address, retry=PATIENT) as client:
        await client.get("acme", "k", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == BIG
    assert names(tmp_path) == ["dest"]


def cut_short(server: ScriptedServer) -> Any:
    """A Get that stops after its first chunk: in a way that loses none of it, as an error status might."""

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(await server.storage.find(request, context), request)[:2]:
            await context.write(response)

    return step


async def test_a_seekable_file_gets_the_same_version_again(client: AsyncClient, server: ScriptedServer) -> None:
    """A file that is written over in place is pinned to the version that it holds a part of."""
    await client.put("acme", "k", BIG)
    server.storage.next("Get", cut_short(server))
    buffer = io.BytesIO()
    await client.get("acme", "k", buffer)
    assert buffer.getvalue() == BIG
    assert [request.version_id for request in server.storage.requests["Get"]] == ["", "v1"]


async def test_a_mixture_of_versions_is_never_written(client: AsyncClient, server: ScriptedServer) -> None:
    """If the object was replaced meanwhile, the file's Get fails rather than mixing two versions."""
    await client.put("acme", "k", BIG)

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(server.storage.objects["acme", "k"], request)[:2]:
            await context.write(response)
        header = pb.PutHeader(tenant_id="acme", key="k", write_mode=pb.WRITE_MODE_OVERWRITE)
        await server.storage.store(header, b"newer", context)

    server.storage.next("Get", step)
    with pytest.raises(KeystowError) as failure:
        await client.get("acme", "k", io.BytesIO())
    assert failure.value.reason == "OBJECT_CHANGED"
    assert failure.value.attempts == 2


async def test_a_path_follows_the_object_to_its_new_version(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """A temporary file starts empty, so OBJECT_CHANGED is overcome; a version asked for by name is not replaced."""
    await client.put("acme", "k", b"data")
    server.storage.next("Get", fail(Code.ABORTED, "OBJECT_CHANGED", "restart"))
    await client.get("acme", "k", tmp_path / "dest")
    assert len(server.storage.requests["Get"]) == 2
    with pytest.raises(KeystowError) as failure:
        await client.get("acme", "k", tmp_path / "dest", version_id="v0")
    assert (failure.value.reason, failure.value.attempts) == ("OBJECT_CHANGED", 1)


# --- Delete -----------------------------------------------------------------------------------------------------------


def deleted_but(server: ScriptedServer, code: Code) -> Any:
    """A Delete that happens, and whose answer is lost."""

    async def step(request: pb.DeleteRequest, context: Context) -> None:
        await server.storage.delete(request, context)
        await context.abort(code, "gone")

    return step


async def test_a_delete_whose_answer_was_lost_succeeds(client: AsyncClient, server: ScriptedServer) -> None:
    """Not finding the object is then what success looks like."""
    await client.put("acme", "k", b"data")
    server.storage.next("Delete", deleted_but(server, Code.UNAVAILABLE))
    await client.delete("acme", "k")
    assert not server.storage.objects


@pytest.mark.parametrize("step", [None, fail(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "retry")])
async def test_a_delete_of_nothing_fails(client: AsyncClient, server: ScriptedServer, step: Any) -> None:
    """An object that was never there is OBJECT_NOT_FOUND, also after a refusal that did nothing."""
    if step:
        server.storage.next("Delete", step)
    with pytest.raises(NotFoundError):
        await client.delete("acme", "k")
    await client.delete("acme", "k", allow_missing=True)
