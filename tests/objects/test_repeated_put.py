"""A Put repeated with its upload_id through a real channel: one object and one answer, however often and how."""

import asyncio
import hashlib
from typing import Any

import google_crc32c
import grpc
import pytest

from keystow.v1.storage_pb2 import (
    WRITE_MODE_CREATE,
    WRITE_MODE_OVERWRITE,
    DeleteRequest,
    ObjectInfo,
    PutSmallRequest,
)
from rpc.wire import MIB, body, content, failure, finish, get, header, new_upload_id, pieces_of, put, send_put
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZES = [0, 1000, 3 * MIB]

every_size = pytest.mark.parametrize("size", SIZES)
declared_or_not = pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])


def fields_of(size: int, *, declared: bool, **fields: Any) -> dict[str, Any]:
    """Of one upload's header, every time the same."""
    return {"upload_id": new_upload_id(), **({"size": size} if declared else {}), **fields}


@every_size
@declared_or_not
async def test_at_once(server: Server, tenant: str, size: int, *, declared: bool) -> None:
    """Several streams of one upload side by side store one object, and each gets the same answer."""
    fields, data = fields_of(size, declared=declared), content(size)
    answers = await asyncio.gather(*(put(server, tenant, "key", data, **fields) for _ in range(4)))
    assert answers == [answers[0]] * 4
    assert len(server.stored(tenant)) == 1
    assert server.unfinished() == []
    assert (await get(server, tenant, "key")).data == data


@every_size
@declared_or_not
@pytest.mark.parametrize("mode", [WRITE_MODE_CREATE, WRITE_MODE_OVERWRITE])
async def test_later_with_all_its_content(server: Server, tenant: str, size: int, mode: Any, *, declared: bool) -> None:
    """The whole stream again gives the first answer, and the stored object stays as it is."""
    fields, data = fields_of(size, declared=declared, write_mode=mode, metadata={"b": "1", "a": "2"}), content(size)
    first = await put(server, tenant, "key", data, **fields)
    assert await put(server, tenant, "key", data, **fields) == first
    assert (await get(server, tenant, "key")).object == first


@every_size
@declared_or_not
async def test_later_with_its_sums_alone(server: Server, tenant: str, size: int, *, declared: bool) -> None:
    """PutFinish with size and CRC32C, and no chunk before it, is enough."""
    fields, data = fields_of(size, declared=declared), content(size)
    first = await put(server, tenant, "key", data, **fields)
    sums = finish(size, crc32c=google_crc32c.value(data))
    assert await send_put(server, header(tenant, "key", **fields), sums) == first


async def test_with_sha256(server: Server, tenant: str) -> None:
    """The digest of the first answer comes again, whether the content does or not."""
    fields, data = fields_of(1000, declared=False, verify_sha256=True), content(1000)
    sums = {"sha256": hashlib.sha256(data).digest()}
    begin = header(tenant, "key", **fields)
    first = await send_put(server, begin, *body(pieces_of(data), **sums))
    assert await send_put(server, begin, *body(pieces_of(data), **sums)) == first
    assert await send_put(server, begin, finish(len(data), crc32c=first.crc32c, **sums)) == first
    other = finish(len(data), crc32c=first.crc32c, sha256=bytes(32))
    await expect_reused(send_put(server, begin, other))


async def test_over_the_version_that_it_replaced(server: Server, tenant: str) -> None:
    """A Put with if_version_id has moved that version away itself, and is answered all the same."""
    before = await put(server, tenant, "key", b"before")
    fields = fields_of(5, declared=False, if_version_id=before.version_id)
    first = await put(server, tenant, "key", b"after", **fields)
    assert await put(server, tenant, "key", b"after", **fields) == first


async def test_in_one_message_or_in_a_stream(server: Server, tenant: str) -> None:
    """PutSmall repeats a Put that declared its size, and the other way round."""
    fields, data = fields_of(1000, declared=True), content(1000)
    first = await put(server, tenant, "key", data, **fields)
    begin = header(tenant, "key", **fields).header
    begin.ClearField("size")
    again = await server.storage.PutSmall(PutSmallRequest(header=begin, data=data))
    assert again.object == first
    assert await put(server, tenant, "key", data, **fields) == first


async def test_in_one_message_each_time(server: Server, tenant: str) -> None:
    """PutSmall finds its own object when it is sent again, and refuses other content under the id."""
    begin = header(tenant, "key", content_type="text/plain").header
    request = PutSmallRequest(header=begin, data=b"content")
    answers = await asyncio.gather(*(server.storage.PutSmall(request) for _ in range(4)))
    assert [each.object for each in answers] == [answers[0].object] * 4
    await expect_reused(server.storage.PutSmall(PutSmallRequest(header=begin, data=b"CONTENT")))
    begin.content_type = "text/html"
    await expect_reused(server.storage.PutSmall(PutSmallRequest(header=begin, data=b"content")))
    assert (await get(server, tenant, "key")).object == answers[0].object
    assert server.unfinished() == []


OTHERS: dict[str, dict[str, Any]] = {
    "content type": {"content_type": "text/html"},
    "metadata": {"metadata": {"name": "other"}},
    "no metadata": {"metadata": {}},
    "declared size": {"size": 1000},
    "write mode": {"write_mode": WRITE_MODE_OVERWRITE},
    "verify_sha256": {"verify_sha256": True},
}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_header_under_the_same_id(server: Server, tenant: str, other: str) -> None:
    """Whatever differs in the header: it is another Put, and is told so instead of being taken for the first."""
    data = content(1000)
    fields = fields_of(1000, declared=False, content_type="text/plain", metadata={"name": "value"})
    first = await put(server, tenant, "key", data, **fields)
    sums = {"sha256": hashlib.sha256(data).digest()} if other == "verify_sha256" else {}
    messages = body(pieces_of(data), **sums)
    await expect_reused(send_put(server, header(tenant, "key", **{**fields, **OTHERS[other]}), *messages))
    assert (await get(server, tenant, "key")).object == first


@declared_or_not
async def test_other_content_under_the_same_id(server: Server, tenant: str, *, declared: bool) -> None:
    """The same header with other bytes, a byte more, or other sums: refused, and what stands stays."""
    fields, data = fields_of(1000, declared=declared), content(1000)
    first = await put(server, tenant, "key", data, **fields)
    crc32c = google_crc32c.value(data)
    await expect_reused(put(server, tenant, "key", content(1000, "other"), **fields))
    await expect_reused(send_put(server, header(tenant, "key", **fields), finish(1000, crc32c=crc32c ^ 1)))
    if not declared:
        await expect_reused(put(server, tenant, "key", data + b"x", **fields))
        await expect_reused(send_put(server, header(tenant, "key", **fields), finish(999, crc32c=crc32c)))
    assert (await get(server, tenant, "key")).object == first


async def expect_reused(call: Any) -> None:
    """The call ends with UPLOAD_ID_REUSED."""
    told = await failure(call)
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ALREADY_EXISTS, "UPLOAD_ID_REUSED", "none")


@pytest.mark.parametrize("mode", [WRITE_MODE_CREATE, WRITE_MODE_OVERWRITE])
@pytest.mark.parametrize("size", [5, 3 * MIB])
@pytest.mark.parametrize("others", [1, 12])
async def test_after_others_have_overwritten_it(server: Server, tenant: str, mode: Any, size: int, others: int) -> None:
    """The repeated Put never brings its object back over the newer one, and is told that it was stored."""
    fields, data = fields_of(size, declared=False, write_mode=mode), content(size)
    await put(server, tenant, "key", data, **fields)
    for _ in range(others):
        newer = await put(server, tenant, "key", b"newer", write_mode=WRITE_MODE_OVERWRITE)
    await expect_replaced(put(server, tenant, "key", data, **fields))
    small = header(tenant, "key", **fields).header
    await expect_replaced(server.storage.PutSmall(PutSmallRequest(header=small, data=b"small")))
    assert (await get(server, tenant, "key")).object == newer


async def expect_replaced(call: Any) -> None:
    """The call ends with UPLOAD_REPLACED."""
    told = await failure(call)
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_REPLACED", "none")


async def test_after_a_delete(server: Server, tenant: str) -> None:
    """Nothing stands, so it is a Put like any other; with its sums alone it stores nothing."""
    fields, data = fields_of(1000, declared=False), content(1000)
    first = await put(server, tenant, "key", data, **fields)
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
    sums = finish(1000, crc32c=google_crc32c.value(data))
    told = await failure(send_put(server, header(tenant, "key", **fields), sums))
    assert told.reason == "SIZE_MISMATCH"
    again = await put(server, tenant, "key", data, **fields)
    assert again.version_id != first.version_id


async def test_one_id_for_several_keys_and_tenants(server: Server, tenant: str) -> None:
    """An upload id belongs to its tenant and key: elsewhere it is another upload."""
    other = await register(server, f"{tenant}-other")
    fields = fields_of(0, declared=False)
    answers: list[ObjectInfo] = [
        await put(server, each, key, key.encode(), **fields) for each in (tenant, other) for key in ("a", "b")
    ]
    assert len({answer.version_id for answer in answers}) == 4
    assert (await get(server, other, "b")).data == b"b"


@pytest.mark.parametrize("where", ["magic", "upload id"])
async def test_what_stands_is_damaged(server: Server, tenant: str, where: str) -> None:
    """A damaged header proves nothing, so CREATE finds the key taken; OVERWRITE repairs it."""
    fields = fields_of(5, declared=False)
    await put(server, tenant, "key", b"first", **fields)
    [file] = server.stored(tenant)
    stored = bytearray(file.read_bytes())
    stored[0 if where == "magic" else stored.index(fields["upload_id"].encode())] ^= 0x40
    file.write_bytes(stored)
    told = await failure(put(server, tenant, "key", b"first", **fields))
    assert told.reason == "OBJECT_EXISTS"
    await put(server, tenant, "key", b"first", **{**fields, "write_mode": WRITE_MODE_OVERWRITE})
    assert (await get(server, tenant, "key")).data == b"first"
