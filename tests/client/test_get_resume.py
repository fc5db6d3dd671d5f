"""A broken Get goes on where its bytes ended, with the same version, whatever it is read into."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest

from client.conftest import PATIENT
from client.content import names, noise
from client.destinations import Pipe
from client.relay import Relay
from client.scripted import MIB, Context, ScriptedServer, Step, Stored, fail, get_responses
from keystow.v1 import storage_pb2 as pb
from keystow_client import AsyncClient, Client, IncompleteError, IntegrityError, KeystowError, TransportError

Code = grpc.StatusCode
BIG = noise(3 * MIB + 7)
RANGES = [(0, None), (5, None), (-2 * MIB, None), (MIB + 5, 2 * MIB), (-3 * MIB, MIB + 1)]

STALLED = fail(Code.DEADLINE_EXCEEDED, "STREAM_STALLED", "resume")
STOPPING = fail(Code.UNAVAILABLE, "SHUTTING_DOWN", "retry")
DAMAGED = fail(Code.DATA_LOSS, "OBJECT_TAMPERED", "none")


def cut(server: ScriptedServer, messages: int, ending: Step | None = None) -> Step:
    """An honest Get that ends after so many messages: by default well, so that none of them is lost."""

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(await server.storage.find(request, context), request)[:messages]:
            await context.write(response)
        if ending is not None:
            await ending(request, context)

    return step


@pytest.mark.parametrize(("offset", "length"), RANGES)
async def test_every_destination_gets_the_rest(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, offset: int, length: int | None
) -> None:
    """After any number of messages the next stream is asked for exactly what is missing, of the same version."""
    server.storage.add("k", BIG)
    start = offset if offset >= 0 else len(BIG) + offset
    expected = BIG[start:][:length]
    for messages in range(1, 2 + -(-len(expected) // MIB)):  # all but GetFinish at most
        received = min(len(expected), (messages - 1) * MIB)
        for dest in (None, tmp_path / "dest", io.BytesIO(), Pipe()):
            server.storage.requests.clear()
            server.storage.next("Get", cut(server, messages))
            if dest is None:
                async with await client.get("acme", "k", offset=offset, length=length) as download:
                    assert b"".join([chunk async for chunk in download]) == expected
            else:
                await client.get("acme", "k", dest, offset=offset, length=length)
            match dest:
                case Path():
                    assert dest.read_bytes() == expected
                case io.BytesIO():
                    assert dest.getvalue() == expected
                case Pipe():
                    assert dest.taken == expected
            _, second = server.storage.requests["Get"]
            assert (second.offset, second.version_id) == (start + received, "v1")
            assert second.HasField("length") == (length is not None)
            if length is not None:
                assert second.length == len(expected) - received
    assert names(tmp_path) == ["dest"]


@pytest.mark.parametrize("ending", [STALLED, STOPPING])
async def test_what_the_service_says_helps_is_done(client: AsyncClient, server: ScriptedServer, ending: Step) -> None:
    """Resume and retry both go on; a failure that nothing helps against is raised at once."""
    server.storage.add("k", BIG)
    server.storage.next("Get", cut(server, 2, ending), ending, cut(server, 3, ending))
    async with await client.get("acme", "k") as download:
        assert b"".join([chunk async for chunk in download]) == BIG
    server.storage.next("Get", cut(server, 2, DAMAGED))
    with pytest.raises(KeystowError) as failure:
        await client.get("acme", "k", Pipe())
    assert (failure.value.reason, failure.value.attempts) == ("OBJECT_TAMPERED", 1)


async def test_progress_renews_the_patience(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """A Get that gets on may break more often than it may fail in a row, and counts no byte twice."""
    data = noise(12 * MIB)
    server.storage.add("k", data)
    server.storage.next("Get", *[cut(server, 2)] * 12)
    heard: list[int] = []
    await client.get("acme", "k", tmp_path / "dest", progress=heard.append)
    assert (tmp_path / "dest").read_bytes() == data
    assert heard == [number * MIB for number in range(1, 13)]


async def test_failures_in_a_row_are_bounded(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """Where nothing comes any more the last failure is raised, and nothing is left."""
    server.storage.add("k", BIG)
    server.storage.next("Get", cut(server, 2), *[cut(server, 1)] * 9)
    with pytest.raises(IncompleteError) as failure:
        await client.get("acme", "k", tmp_path / "dest")
    assert failure.value.attempts == 6
    assert names(tmp_path) == []


async def test_an_object_that_was_replaced_on_the_way(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """A path begins anew with the new version; elsewhere the failure is told, for two versions must not be mixed."""
    newer = noise(2 * MIB, seed=1)

    def replaced() -> Step:
        server.storage.add("k", BIG)

        async def step(request: pb.GetRequest, context: Context) -> None:
            await cut(server, 2)(request, context)
            server.storage.add("k", newer)

        return step

    server.storage.next("Get", replaced())
    await client.get("acme", "k", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == newer
    for dest in (io.BytesIO(), Pipe()):
        server.storage.next("Get", replaced())
        with pytest.raises(KeystowError) as failure:
            await client.get("acme", "k", dest)
        assert failure.value.reason == "OBJECT_CHANGED"
    server.storage.next("Get", replaced())
    async with await client.get("acme", "k") as download:
        assert await anext(download) == BIG[:MIB]
        with pytest.raises(KeystowError) as failure:
            await anext(download)
    assert failure.value.reason == "OBJECT_CHANGED"


async def test_the_whole_is_verified_across_streams(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """Streams that are right each for itself must add up to the object's checksum."""
    server.storage.add("k", BIG)
    stored = server.storage.objects["acme", "k"]
    other = Stored(stored.info, noise(len(BIG), seed=1), stored.header)

    async def mixed(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(other, request):
            await context.write(response)

    server.storage.next("Get", cut(server, 2), mixed)
    with pytest.raises(IntegrityError, match="checksum"):
        await client.get("acme", "k", Pipe())
    server.storage.next("Get", cut(server, 2), mixed)
    await client.get("acme", "k", tmp_path / "dest")
    assert google_crc32c.value((tmp_path / "dest").read_bytes()) == stored.info.crc32c


def test_the_synchronous_client_goes_on_too(sync_client: Client, server: ScriptedServer) -> None:
    """Its downloads are continued the same way, and a real pipe gets every byte once."""
    server.storage.add("k", BIG)
    server.storage.next("Get", cut(server, 2), cut(server, 2))
    with sync_client.get("acme", "k") as download:
        assert b"".join(download) == BIG
    reading, writing = os.pipe()
    taken: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as file:
            taken.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    server.storage.next("Get", cut(server, 3))
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        sync_client.get("acme", "k", pipe)
    reader.join()
    assert taken == [BIG]


@pytest.mark.parametrize("got", [1, 100_000, 2 * MIB])
@pytest.mark.parametrize("kind", [Pipe, io.BytesIO])
async def test_a_broken_connection_is_overcome(relay: Relay, server: ScriptedServer, kind: type[Any], got: int) -> None:
    """Wherever it is reset, no byte is missing or doubled."""
    server.storage.add("k", BIG)
    relay.cuts.extend([("got", got), ("got", got)])
    dest = kind()
    async with AsyncClient(relay.address, retry=PATIENT) as client:
        await client.get("acme", "k", dest)
    assert (dest.taken if isinstance(dest, Pipe) else dest.getvalue()) == BIG


async def test_a_copy_survives_breaks_on_both_sides(client: AsyncClient, server: ScriptedServer) -> None:
    """A download as the source of a Put: each goes on for itself."""
    server.storage.add("k", BIG)
    server.storage.next("Get", cut(server, 3, STALLED))
    server.storage.next("Put", STALLED)
    async with await client.get("acme", "k") as download:
        await client.put("other", "k", download)
    assert server.storage.objects["other", "k"].data == BIG


async def test_a_copy_whose_origin_fails_is_not_stored(client: AsyncClient, server: ScriptedServer) -> None:
    """The download's failure ends the Put, though it might help a Put to be tried again."""
    server.storage.add("k", BIG)
    server.storage.next("Get", cut(server, 3), *[cut(server, 1)] * 9)
    with pytest.raises(TransportError):
        async with await client.get("acme", "k") as download:
            await client.put("other", "k", download)
    assert ("other", "k") not in server.storage.objects
