"""A Put that is cut again and again, by everything that cuts: each time another server process goes on with it.

Nothing passes from one process to the next but the token, which the client keeps, and what is in the store.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import google_crc32c
import pytest

from client.relay import Relay
from keystow.v1.storage_pb2 import ListRequest, ObjectInfo, UploadProgress
from rpc.interrupted import PART, ResumablePut, begin, expect_one_or_none, interrupted, resume, rival
from rpc.wire import MIB, TIMEOUT, Failure, content, finish, get, new_upload_id
from servers.forked import Nursery, nursery
from servers.in_process import DATA_CENTER, Server, attached, register
from servers.keystow import KeystowServer
from servers.moto import MotoServer, moto
from servers.on_aws import aws_place

__all__ = ["moto"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 100 * MIB + 12_345
CUTS = 20
TENANT = "acme"

Settings = Mapping[str, str]
Cut = Callable[[ResumablePut], Awaitable[None]]
Sending = Callable[[Server, Cut], Awaitable[None]]  # what a client sends, and the cut at its end


@contextmanager
def on_this_machine(_: MotoServer) -> Iterator[Settings]:
    """The embedded default."""
    yield {}


@contextmanager
def on_aws(moto: MotoServer) -> Iterator[Settings]:
    """A bucket and a KMS key on moto."""
    with pytest.MonkeyPatch.context() as patch, aws_place(moto, patch) as (place, _):
        places = {DATA_CENTER: place.model_dump(mode="json", exclude_defaults=True)}
        yield {"KEYSTOW_DATA_CENTERS": json.dumps(places), "KEYSTOW_DEPLOYMENT_ID": "tests"}


PLACES = pytest.mark.parametrize("place", [on_this_machine, on_aws], ids=["local", "s3"])
Place = Callable[[MotoServer], AbstractContextManager[Settings]]


class Backup:
    """The client: what it sends, and the last progress that it was told."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stream: ResumablePut | None = None
        self.upload_id = new_upload_id()
        self.token = b""
        self.persisted = 0

    async def open(self, server: Server) -> ResumablePut:
        """The next stream of the upload."""
        if self.stream is None or not self.token:
            self.stream = await begin(server, TENANT, upload_id=self.upload_id)
        else:
            self.stream = await resume(server, self.stream, self.token)
        return self.stream

    async def send(self, server: Server, cut: Cut, *, stop: int) -> None:
        """Send on from what is persisted up to ``stop``, and cut. Progress is taken as it comes."""
        stream = await self.open(server)
        listening = asyncio.create_task(self._listen(stream))
        await stream.send(self.data[:stop], self.persisted)
        await cut(stream)
        stream.call.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, stream: ResumablePut) -> None:
        while True:
            told = await stream.told()
            assert told.persisted_size >= self.persisted
            self.token, self.persisted = told.resume_token, told.persisted_size

    async def finish(self, server: Server) -> ObjectInfo:
        """Send the rest."""
        stream = await self.open(server)
        assert (await stream.told()).persisted_size == self.persisted
        await stream.send(self.data, self.persisted)
        return await stream.end(SIZE, crc32c=google_crc32c.value(self.data))


@pytest.fixture(scope="module")
def processes() -> Iterator[Nursery]:
    """Where new server processes come from."""
    with nursery() as started:
        yield started


@pytest.fixture(scope="module")
def data() -> bytes:
    """What is backed up."""
    return content(SIZE)


@asynccontextmanager
async def running(processes: Nursery, data_dir: Path, settings: Settings) -> AsyncIterator[Server]:
    """A new server process."""
    with processes.server(data_dir, settings) as process:
        async with attached(process.address, data_dir) as server:
            yield server


async def cut_client(sending: Sending, process: KeystowServer, data_dir: Path) -> None:
    """The client's call goes."""

    async def cancel(stream: ResumablePut) -> None:
        stream.call.cancel()

    async with attached(process.address, data_dir) as server:
        await sending(server, cancel)


async def cut_connection(sending: Sending, process: KeystowServer, data_dir: Path) -> None:
    """The connection is reset."""
    with ExitStack() as connection:
        relay = connection.enter_context(Relay(int(process.address.rpartition(":")[2])))

        async def reset(_: ResumablePut) -> None:
            await asyncio.to_thread(connection.close)

        async with attached(relay.address, data_dir) as server:
            await sending(server, reset)


async def cut_server(sending: Sending, process: KeystowServer, data_dir: Path) -> None:
    """The server is killed."""

    async def kill(_: ResumablePut) -> None:
        await asyncio.to_thread(process.kill)

    async with attached(process.address, data_dir) as server:
        await sending(server, kill)


KINDS = [cut_client, cut_connection, cut_server]


@PLACES
async def test_twenty_cuts(place: Place, moto: MotoServer, processes: Nursery, data: bytes, tmp_path: Path) -> None:
    """Client, connection and server process go, at random points; the object is what was sent, byte for byte."""
    seed = os.environ.get("KEYSTOW_CUTS") or str(time.time_ns())
    sys.stdout.write(f"the same again: KEYSTOW_CUTS={seed}\n")  # pytest shows it where the test fails
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    points = sorted(chance.randrange(SIZE) for _ in range(CUTS))
    kinds = [*KINDS, *(chance.choice(KINDS) for _ in range(CUTS - len(KINDS)))]
    chance.shuffle(kinds)
    backup = Backup(data)
    with place(moto) as settings:
        async with running(processes, tmp_path, settings) as server:
            await register(server, TENANT)
        for point, cut in zip(points, kinds, strict=True):
            with processes.server(tmp_path, settings) as process:
                await cut(partial(backup.send, stop=max(point, backup.persisted)), process, tmp_path)
        assert backup.persisted > 0
        async with running(processes, tmp_path, settings) as server:
            info = await backup.finish(server)
        async with running(processes, tmp_path, settings) as server:
            read = await get(server, TENANT, "key")
            assert read.object == info
            assert read.data == data


@PLACES
@pytest.mark.parametrize("cut", KINDS)
@pytest.mark.parametrize(
    ("committed", "by_token"),
    [(False, True), (False, False), (True, True)],
    ids=["at_once-token", "at_once-upload_id", "committed"],
)
async def test_cut_behind_the_finish(
    place: Place,
    moto: MotoServer,
    processes: Nursery,
    data: bytes,
    tmp_path: Path,
    cut: Callable[[Sending, KeystowServer, Path], Awaitable[None]],
    *,
    committed: bool,
    by_token: bool,
) -> None:
    """The answer to PutFinish is lost, at once or certainly after the commit: another process gives it.

    It does so as often as it is asked, whether from the token or from the beginning, and stores nothing more.
    """
    data = data[: 12 * MIB]
    put: ResumablePut
    standing: list[str] = []

    async def all_of_it(server: Server, cut: Cut) -> None:
        nonlocal put, standing
        put = await begin(server, TENANT)
        await put.send(data)
        await put.told_of(PART)
        await put.call.write(finish(len(data), crc32c=google_crc32c.value(data)))
        if committed:
            async with asyncio.timeout(TIMEOUT):
                while not standing:
                    standing = await versions(server)
        await cut(put)

    with place(moto) as settings:
        async with running(processes, tmp_path, settings) as server:
            await register(server, TENANT)
        with processes.server(tmp_path, settings) as process:
            await cut(all_of_it, process, tmp_path)
        ways = [put.progress[-1], UploadProgress()]
        async with running(processes, tmp_path, settings) as server:
            first = await rival(server, put, ways[0 if by_token else 1], data)
            if settings and not committed and isinstance(first, Failure):  # the killed server's last request came late
                assert first.reason in {"UPLOAD_EXPIRED", "STORE_UNAVAILABLE"}
                first = await rival(server, put, UploadProgress(), data)
            assert [await rival(server, put, way, data) for way in ways] == [first, first]
            read = await get(server, TENANT, "key")
            assert (read.object, read.data) == (first, data)
            assert await versions(server) == [read.object.version_id]
            if committed:
                assert standing == [read.object.version_id]


async def versions(server: Server) -> list[str]:
    """Of all objects that stand."""
    return [each.version_id for each in (await server.storage.List(ListRequest(tenant_id=TENANT))).objects]


@PLACES
async def test_two_processes_with_one_token(
    place: Place, moto: MotoServer, processes: Nursery, data: bytes, tmp_path: Path
) -> None:
    """Two server processes go on with one upload at once, with other bytes each: never a mixture."""
    data = data[: 40 * MIB]
    with place(moto) as settings:
        async with (
            running(processes, tmp_path, settings) as first,
            running(processes, tmp_path, settings) as second,
        ):
            await register(first, TENANT)
            before = await interrupted(first, TENANT, data, 8 * MIB)
            last = before.progress[-1]
            contents = [data, data[: last.persisted_size] + bytes(len(data) - last.persisted_size)]
            ends = await asyncio.gather(
                rival(first, before, last, contents[0]), rival(second, before, last, contents[1])
            )
            await expect_one_or_none(first, before, ends, contents, moto=bool(settings))
