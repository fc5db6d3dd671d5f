"""A client that leaves wakes nobody, however grpc.aio tells of it.

It cancels the handler, but now and then what the handler was sending fails first, or what it was reading ends first.
The store here swallows the cancellation, so that the second is what each of these calls comes to see.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from keystow.v1.storage_pb2 import GetRequest
from keystow_service import app
from keystow_service.adapters.local_store import open_local_store
from keystow_service.ports import ObjectStore, StoredObject, StoredRange, UnfinishedUpload, Upload, WriteCondition
from rpc.wire import TIMEOUT, chunk, get, header, put, until
from servers.in_process import Server, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


class DeafStore:
    """The local store, whose reads wait, once asked to, until they are cancelled, and then go on."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.deaf = False
        self.waiting = asyncio.Event()

    async def read(self, name: str, start: int, length: int, *, etag: str | None = None) -> StoredRange:
        if self.deaf:
            self.deaf = False
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
        return await self._store.read(name, start, length, etag=etag)

    def begin(self, name: str, condition: WriteCondition) -> Upload:
        return self._store.begin(name, condition)

    def unfinished(self, prefix: str) -> AsyncGenerator[UnfinishedUpload, None]:
        return self._store.unfinished(prefix)

    async def head(self, name: str) -> StoredObject:
        return await self._store.head(name)

    async def list(self, prefix: str, *, start_after: str = "", limit: int) -> Sequence[StoredObject]:
        return await self._store.list(prefix, start_after=start_after, limit=limit)


@asynccontextmanager
async def deaf(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Server, str, DeafStore]]:
    """A server on such a store, with a tenant and an object there."""
    stores: dict[str, DeafStore] = {}

    @asynccontextmanager
    async def open_store(root: Path, **options: Any) -> AsyncIterator[DeafStore]:
        async with open_local_store(root, **options) as store:
            stores[root.name] = DeafStore(store)
            yield stores[root.name]

    monkeypatch.setattr(app, "open_local_store", open_store)
    async with serving(data_dir) as server:
        tenant = await register(server, "acme")
        await put(server, tenant, "key", b"content")
        yield server, tenant, stores["us"]


@pytest.mark.parametrize("method", ["Get", "Put"])
async def test_a_client_that_leaves_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """One line, CANCELLED, though the Get could not send its header, and the Put found no PutFinish."""
    async with deaf(tmp_path, monkeypatch) as (server, tenant, store):
        with capture_logs() as log:
            store.deaf = True
            if method == "Get":
                call: Any = server.storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT)
            else:
                call = server.storage.Put(timeout=TIMEOUT)
                await call.write(header(tenant, "key", write_mode="WRITE_MODE_OVERWRITE"))
                await call.write(chunk(0, b"replaced"))
            await store.waiting.wait()
            call.cancel()
            await until(lambda: log != [])
        told = [(entry["event"], entry["method"], entry["code"], entry["reason"]) for entry in log]
        assert told == [("rpc", method, "CANCELLED", "")]
        assert (await get(server, tenant, "key")).data == b"content"
        assert server.unfinished() == []
