"""Delete through a real channel: one object, one version, and what is not there."""

import asyncio
from typing import Any

import grpc
import pytest

from keystow.v1.storage_pb2 import WRITE_MODE_OVERWRITE, DeleteRequest, DeleteResponse
from rpc.wire import failure, get, put
from servers.in_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def delete(server: Server, tenant: str, key: str, **fields: Any) -> DeleteResponse:
    """One object."""
    return await server.storage.Delete(DeleteRequest(tenant_id=tenant, key=key, **fields))


async def test_delete_removes_that_object(server: Server, tenant: str) -> None:
    """It is gone, from the disk too; its neighbours stay, also those whose keys contain its own."""
    for key in ("a", "a/b", "a/b/c", "ab"):
        await put(server, tenant, key, key.encode())
    await delete(server, tenant, "a/b")
    told = await failure(get(server, tenant, "a/b"))
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
    for key in ("a", "a/b/c", "ab"):
        assert (await get(server, tenant, key)).data == key.encode()
    assert len(server.stored(tenant)) == 3


async def test_what_is_missing(server: Server, tenant: str) -> None:
    """Deleting nothing is an error, unless allow_missing says otherwise."""
    told = await failure(delete(server, tenant, "key"))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND", "none")
    await delete(server, tenant, "key", allow_missing=True)
    await delete(server, tenant, "key", allow_missing=True, if_version_id="v")


async def test_one_version(server: Server, tenant: str) -> None:
    """With if_version_id nothing but that version is removed, allow_missing or not."""
    first = await put(server, tenant, "key", b"first")
    second = await put(server, tenant, "key", b"second", write_mode=WRITE_MODE_OVERWRITE)
    for allow_missing in (False, True):
        told = await failure(delete(server, tenant, "key", if_version_id=first.version_id, allow_missing=allow_missing))
        assert (told.code, told.reason, told.recovery) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "VERSION_MISMATCH",
            "none",
        )
    assert (await get(server, tenant, "key")).object == second
    await delete(server, tenant, "key", if_version_id=second.version_id)
    assert server.stored(tenant) == []


async def test_of_deletes_at_once_one_finds_it(server: Server, tenant: str) -> None:
    """The others are told that there is nothing."""
    await put(server, tenant, "key", b"content")
    outcomes = await asyncio.gather(*(delete(server, tenant, "key") for _ in range(4)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [*["AioRpcError"] * 3, "DeleteResponse"]


async def test_a_damaged_object_can_be_deleted(server: Server, tenant: str) -> None:
    """Delete needs neither key nor header."""
    await put(server, tenant, "key", b"content")
    [file] = server.stored(tenant)
    file.write_bytes(b"no object")
    await delete(server, tenant, "key")
    assert server.stored(tenant) == []
