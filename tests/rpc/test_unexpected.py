"""Failures that nobody has named, behind the real use cases: their texts stay inside, and the server serves on.

The store here is the test's own: it fails as no adapter should, with texts that hold what nobody may read.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from keystow.v1.storage_pb2 import (
    DeleteRequest,
    GetRequest,
    GetServerInfoRequest,
    ListRequest,
    PutHeader,
    PutSmallRequest,
    StatRequest,
)
from keystow_service import app
from keystow_service.adapters.local_store import open_local_store
from keystow_service.ports import ObjectStore, Permit, StoredObject, StoredRange, Upload, WriteCondition, always
from rpc.wire import (
    MIB,
    TIMEOUT,
    Failure,
    body,
    chunk,
    content,
    failure,
    finish,
    header,
    new_upload_id,
    pieces_of,
    put,
    received,
    send,
    send_put,
    until,
)
from servers.in_process import Server, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

CANARY = "canary-7d20"
TENANT = "acme"


class UnreliableStore:
    """The local store; the calls in ``failing`` raise what no port mentions."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.failing: set[str] = set()
        self.reads_before = 0  # that still work

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        return UnreliableUpload(self, self._store.begin(name, condition))

    async def head(self, name: str) -> StoredObject:
        self.fail("head")
        return await self._store.head(name)

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> StoredRange:
        if self.reads_before == 0:
            self.fail("read")
        else:
            self.reads_before -= 1
        return await self._store.read(name, start, length, etag=etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int) -> Sequence[StoredObject]:
        self.fail("list")
        return await self._store.list(prefix, start_after=start_after, limit=limit)

    async def delete(self, name: str, *, etag: str | None = None) -> None:
        self.fail("delete")
        await self._store.delete(name, etag=etag)

    def fail(self, call: str) -> None:
        """Here."""
        if call in self.failing:
            _raise()


class UnreliableUpload:
    """One of its uploads."""

    def __init__(self, store: UnreliableStore, upload: Upload) -> None:
        self._store = store
        self._upload = upload

    async def write(self, part: bytearray) -> None:
        self._store.fail("write")
        await self._upload.write(part)

    async def commit(self, last: bytearray, permit: Permit = always) -> StoredObject:
        self._store.fail("commit")
        return await self._upload.commit(last, permit)

    async def abort(self) -> None:
        await self._upload.abort()
        self._store.fail("abort")


def _raise() -> NoReturn:
    raise RuntimeError(f"{CANARY} in a text", {"key": CANARY}) from ValueError(f"{CANARY}, the cause")


@asynccontextmanager
async def unreliable(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Server, UnreliableStore]]:
    """A server on such a store, with a tenant and an object there."""
    stores: dict[str, UnreliableStore] = {}

    @asynccontextmanager
    async def open_store(root: Path, **options: Any) -> AsyncIterator[UnreliableStore]:
        async with open_local_store(root, **options) as store:
            stores[root.name] = UnreliableStore(store)
            yield stores[root.name]

    monkeypatch.setattr(app, "open_local_store", open_store)
    async with serving(data_dir) as server:
        await register(server, TENANT)
        await put(server, TENANT, "key", content(9 * MIB))
        yield server, stores["us"]


def small_put() -> PutSmallRequest:
    """One that stores something new."""
    return PutSmallRequest(header=PutHeader(tenant_id=TENANT, key="new", upload_id=new_upload_id()), data=b"x")


Call = Callable[[Server], Awaitable[Any]]

# Which call of the store fails, and the RPC that meets it.
CALLS: dict[str, tuple[str, Call]] = {
    "Put, looking": ("read", lambda server: put(server, TENANT, "new", b"x")),
    "Put, a part": ("write", lambda server: put(server, TENANT, "new", content(9 * MIB))),
    "Put, the commit": ("commit", lambda server: put(server, TENANT, "new", b"x")),
    "PutSmall": ("commit", lambda server: server.storage.PutSmall(small_put())),
    "Get": ("read", lambda server: send(server, "Get", GetRequest(tenant_id=TENANT, key="key"))),
    "Stat": ("read", lambda server: server.storage.Stat(StatRequest(tenant_id=TENANT, key="key"))),
    "List": ("list", lambda server: server.storage.List(ListRequest(tenant_id=TENANT))),
    "Delete": ("delete", lambda server: server.storage.Delete(DeleteRequest(tenant_id=TENANT, key="key"))),
}


@pytest.mark.parametrize("case", CALLS)
async def test_an_exception_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """The caller is told INTERNAL and an id, the log says where it happened, and neither says what was in it."""
    failing, call = CALLS[case]
    async with unreliable(tmp_path, monkeypatch) as (server, store):
        store.failing = {failing, "abort"}
        with capture_logs() as log:
            told = await failure(call(server))
        expect_internal(told)
        [unexpected] = [entry for entry in log if entry["event"] == "unexpected_exception"]
        assert unexpected["request_id"] == told_id(told)
        assert unexpected["exception"] == "RuntimeError"
        assert any("test_unexpected" in place for place in unexpected["at"])
        assert CANARY not in repr(log)
        store.failing = set()
        await server.storage.GetServerInfo(GetServerInfoRequest())
        await put(server, TENANT, "new", b"works again")
        assert server.unfinished() == []


def expect_internal(told: Failure) -> None:
    """All that a caller may know."""
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.INTERNAL, "INTERNAL", "retry")
    assert told_id(told) in told.message
    assert CANARY not in repr(told)


def told_id(told: Failure) -> str:
    """The request's id."""
    assert told.metadata
    return told.metadata["requestId"]


async def test_what_fails_while_cleaning_up_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Put that is refused says why, and one that is cancelled stays cancelled, also if its abort fails."""
    async with unreliable(tmp_path, monkeypatch) as (server, store):
        store.failing = {"abort"}
        with capture_logs() as log:
            told = await failure(send_put(server, header(TENANT, "new"), chunk(0, b"abc"), finish(4)))
            assert told.reason == "SIZE_MISMATCH"
            call = server.storage.Put(timeout=TIMEOUT)
            for message in (header(TENANT, "new"), *list(body(pieces_of(content(9 * MIB))))[:-1]):
                await call.write(message)
            await until(lambda: server.unfinished() != [])
            call.cancel()
            await until(lambda: server.unfinished() == [])
            await until(lambda: len(codes(log)) == len(failed_aborts(log)) == 2)
        assert codes(log) == ["INVALID_ARGUMENT", "CANCELLED"]
        assert failed_aborts(log) == ["RuntimeError", "RuntimeError"]
        assert CANARY not in repr(log)


def codes(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the RPCs that have ended."""
    return [entry["code"] for entry in log if entry["event"] == "rpc"]


def failed_aborts(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why, of each."""
    return [entry["reason"] for entry in log if entry["event"] == "upload_not_aborted"]


async def test_in_the_middle_of_a_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some chunks too: the stream ends with the status, and without a GetFinish."""
    async with unreliable(tmp_path, monkeypatch) as (server, store):
        store.failing, store.reads_before = {"read"}, 3  # the front, the footer, the first block
        plaintext = bytearray()
        request = GetRequest(tenant_id=TENANT, key="key")
        told = await failure(received(aiter(server.storage.Get(request, timeout=TIMEOUT)), plaintext))
        expect_internal(told)
        assert 0 < len(plaintext) < 9 * MIB
        assert content(9 * MIB).startswith(plaintext)


async def test_parsers_texts_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a protobuf parser says of a broken message may quote it."""
    broken: list[tuple[str, Message | bytes]] = [
        ("Stat", StatRequest(tenant_id=f"{CANARY}??").SerializeToString().replace(b"??", b"\xff\xfe")),
        ("Put", f"\x0a\x7f{CANARY}".encode()),
    ]
    async with unreliable(tmp_path, monkeypatch) as (server, _):
        with capture_logs() as log:
            for method, message in broken:
                told = await failure(send(server, method, message))
                assert told.reason == "REQUEST_INVALID"
                assert CANARY not in repr(told)
        assert len(log) == 2
        assert CANARY not in repr(log)
