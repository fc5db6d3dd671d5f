"""A server whose audit log cannot be written: what it does in either mode, and that it goes on when writing works.

The directory is taken away, with the file that is being written: nothing can be written there until it is back.
"""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from audit.writing import entries_of
from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, GetServerInfoRequest, ListRequest
from rpc.wire import MIB, TIMEOUT, content, failure, put, received, until
from servers.in_process import NARROW_WINDOW, Server, connected, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True, slots=True)
class Place:
    """A server with a tenant, and its log's directory, which can be away."""

    server: Server
    tenant: str
    directory: Path

    def take_away(self) -> None:
        """The log, too. At once, for the server may be about to begin another file there."""
        shutil.rmtree(self.directory.rename(self.directory.with_name("away")))

    async def give_back(self) -> Sequence[str]:
        """Until the server has seen it. What it tells meanwhile."""
        with capture_logs() as log:
            self.directory.mkdir()
            await until(lambda: any(entry["event"] == "audit_works_again" for entry in log))
        return [str(entry["event"]) for entry in log]

    async def keys(self) -> list[str]:
        """Of the objects that are there."""
        listed = await self.server.storage.List(ListRequest(tenant_id=self.tenant))
        return [info.key for info in listed.objects]


@asynccontextmanager
async def place(data_dir: Path, **settings: object) -> AsyncIterator[Place]:
    """A new one. ``settings`` as in Settings."""
    async with serving(data_dir, **settings) as server:
        yield Place(server, await register(server, "acme"), data_dir / "audit")


async def test_refuse(tmp_path: Path) -> None:
    """The call that finds it out is not answered as done; those after it are not begun; then all works again."""
    async with place(tmp_path, audit_on_failure="refuse") as it:
        await put(it.server, it.tenant, "before", b"content")
        it.take_away()
        for key in ("first", "second", "third"):
            told = await failure(put(it.server, it.tenant, key, b"content"))
            assert (told.code, told.reason, told.recovery) == (
                grpc.StatusCode.UNAVAILABLE,
                "AUDIT_UNAVAILABLE",
                "retry",
            )
            assert "google.rpc.RetryInfo" in told.details
        assert (await failure(it.server.storage.GetServerInfo(GetServerInfoRequest()))).reason == "AUDIT_UNAVAILABLE"
        await it.give_back()
        assert await it.keys() == ["before", "first"]
        await put(it.server, it.tenant, "third", b"content")
    records = [(entry["operation"], entry["code"]) for entry in entries_of(it.directory, "rpc")]
    assert records == [("Put", "OK"), ("List", "OK"), ("Put", "OK")]  # the first was done, and told when it could be
    assert [(entry["lost"], entry["refused"]) for entry in entries_of(it.directory, "gap")] == [(0, 3)]


async def test_no_data_key_without_a_record(tmp_path: Path) -> None:
    """What KMS was asked for and cannot be recorded is not used: nothing is stored."""
    async with place(tmp_path, audit_on_failure="refuse") as it:
        it.take_away()
        assert (await failure(put(it.server, it.tenant, "key", b"content"))).reason == "AUDIT_UNAVAILABLE"
        await it.give_back()
        assert await it.keys() == []
    told = [(entry["event"], entry["operation"], entry["reason"]) for entry in entries_of(it.directory, "rpc", "kms")]
    assert told == [("kms", "Put", ""), ("rpc", "Put", "AUDIT_UNAVAILABLE"), ("rpc", "List", "")]


async def test_running_streams_end_with_their_lease(tmp_path: Path) -> None:
    """KMS is not asked what cannot be recorded: a stream that needs it ends, and no data key is used on."""
    async with place(tmp_path, audit_on_failure="refuse", lease_bound=0) as it:
        data = content(16 * MIB)
        await put(it.server, it.tenant, "key", data)
        async with connected(it.server.address, NARROW_WINDOW) as channel:
            storage = storage_pb2_grpc.StorageServiceStub(channel)
            stream = aiter(storage.Get(GetRequest(tenant_id=it.tenant, key="key"), timeout=TIMEOUT))
            await anext(stream)
            it.take_away()
            await failure(it.server.storage.GetServerInfo(GetServerInfoRequest()))
            plaintext = bytearray()
            assert (await failure(received(stream, plaintext))).reason == "AUDIT_UNAVAILABLE"
        assert data.startswith(plaintext)
        await it.give_back()
    [reading] = [entry for entry in entries_of(it.directory, "rpc") if entry["operation"] == "Get"]
    assert (reading["reason"], reading["bytes_out"]) == ("AUDIT_UNAVAILABLE", len(plaintext))


async def test_alarm(tmp_path: Path) -> None:
    """By default everything goes on; the operator is told, and what memory held is written when it can be."""
    async with place(tmp_path) as it:
        await until(lambda: entries_of(it.directory, "rpc") != [])
        with capture_logs() as log:
            it.take_away()
            await put(it.server, it.tenant, "key", b"content")
            await until(lambda: any(entry["event"] == "audit_failing" for entry in log))
            assert await it.keys() == ["key"]
        [alarm] = [entry for entry in log if entry["event"] == "audit_failing"]
        assert (alarm["problem"], alarm["log_level"]) == ("ENOENT", "error")
        assert [entry["event"] for entry in log].count("audit_file_removed") == 1
        assert "audit_file_removed" not in await it.give_back()
    assert [entry["operation"] for entry in entries_of(it.directory, "rpc")] == ["Put", "List"]
    assert entries_of(it.directory, "gap") == []
