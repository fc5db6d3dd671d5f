"""Put and PutSmall through a real channel: what comes back, and what may stand at the key before."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import google_crc32c
import grpc
import pytest

from keystow.v1.storage_pb2 import (
    WRITE_MODE_CREATE,
    WRITE_MODE_OVERWRITE,
    WRITE_MODE_UNSPECIFIED,
    ObjectInfo,
    PutHeader,
    PutSmallRequest,
    StatRequest,
)
from rpc.wire import (
    MIB,
    TIMEOUT,
    body,
    chunk,
    content,
    failure,
    finish,
    get,
    header,
    new_upload_id,
    pieces_of,
    put,
    send_put,
    until,
)
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

PART = 8 * MIB  # of an object whose size was not declared

Store = Callable[..., Awaitable[ObjectInfo]]


async def put_declared(server: Server, tenant: str, key: str, data: bytes, **fields: Any) -> ObjectInfo:
    """As a client does that knows the size."""
    return await put(server, tenant, key, data, size=len(data), **fields)


async def put_small(server: Server, tenant: str, key: str, data: bytes, **fields: Any) -> ObjectInfo:
    """In one message."""
    begin = PutHeader(tenant_id=tenant, key=key, upload_id=new_upload_id(), **fields)
    request = PutSmallRequest(header=begin, data=data, crc32c=google_crc32c.value(data))
    return (await server.storage.PutSmall(request)).object


every_way = pytest.mark.parametrize("store", [put, put_declared, put_small])


async def stat(server: Server, tenant: str, key: str) -> ObjectInfo:
    """What Stat says."""
    return (await server.storage.Stat(StatRequest(tenant_id=tenant, key=key))).object


@every_way
async def test_all_that_was_said_comes_back(server: Server, tenant: str, store: Store) -> None:
    """PutResult, Stat and GetHeader describe one object alike: as it was put, and as it is stored."""
    data, metadata = content(100_000), {"source": "crm", "größe": "groß", "empty": ""}
    answer = await store(server, tenant, "a/b", data, content_type="text/csv; charset=utf-8", metadata=metadata)
    assert (answer.tenant_id, answer.key, answer.size) == (tenant, "a/b", len(data))
    assert answer.crc32c == google_crc32c.value(data)
    assert (answer.content_type, dict(answer.metadata)) == ("text/csv; charset=utf-8", metadata)
    assert answer.kms_key_arn.startswith("arn:aws:kms:us-east-1:")
    assert answer.sha256 == b""
    [file] = server.stored(tenant)
    assert answer.stored_size == file.stat().st_size
    read = await get(server, tenant, "a/b")
    assert read.data == data
    assert answer == read.object == await stat(server, tenant, "a/b")


async def test_what_is_stored_is_not_plaintext(server: Server, tenant: str) -> None:
    """Neither content, nor content type, nor metadata can be read on the disk."""
    await put(server, tenant, "key", b"canary-1" * 1000, content_type="canary-2", metadata={"canary-3": "canary-4"})
    [file] = server.stored(tenant)
    assert b"canary" not in file.read_bytes()


async def test_sha256_is_told_where_it_was_verified(server: Server, tenant: str) -> None:
    """With verify_sha256 the server's own digest comes back with the answer, and later."""
    data = content(3 * MIB + 1)
    sha256 = hashlib.sha256(data).digest()
    begin = header(tenant, "key", verify_sha256=True)
    answer = await send_put(server, begin, *body(pieces_of(data), sha256=sha256))
    assert answer.sha256 == sha256
    assert (await stat(server, tenant, "key")).sha256 == sha256
    assert (await get(server, tenant, "key")).object.sha256 == sha256


@pytest.mark.parametrize("size", [1, 1000, MIB - 1, MIB + 1, 2 * MIB])
async def test_chunks_of_any_size_give_the_same_object(server: Server, tenant: str, size: int) -> None:
    """How a client cuts its stream leaves no trace."""
    data = content(3 * MIB + 17) if size > 1 else content(1000)
    await send_put(server, header(tenant, "key"), *body(pieces_of(data, size)))
    assert (await get(server, tenant, "key")).data == data


async def test_empty_chunks_keep_a_stream_alive(server: Server, tenant: str) -> None:
    """They may come anywhere before PutFinish and add nothing."""
    messages = [chunk(0, b""), chunk(0, b"abc"), chunk(3, b""), chunk(3, b"def"), chunk(6, b""), chunk(6, b"")]
    answer = await send_put(server, header(tenant, "key"), *messages, finish(6))
    assert answer.size == 6
    assert (await get(server, tenant, "key")).data == b"abcdef"


async def test_sums_are_optional(server: Server, tenant: str) -> None:
    """A client may leave out every checksum; the object has them all the same."""
    answer = await send_put(server, header(tenant, "key"), chunk(0, b"abc"), finish(3))
    assert answer.crc32c == google_crc32c.value(b"abc")


async def test_the_answer_does_not_wait_for_the_half_close(server: Server, tenant: str) -> None:
    """PutFinish is the end: the result comes while the client still holds its side open."""
    call = server.storage.Put(timeout=TIMEOUT)
    for message in (header(tenant, "key"), chunk(0, b"abc"), finish(3)):
        await call.write(message)
    responses = [response async for response in call]
    assert [response.result.object.size for response in responses] == [3]


async def test_the_largest_of_everything_fits(server: Server, tenant: str) -> None:
    """Longest key, content type and metadata together, and the largest object of PutSmall."""
    key, data = "\0" * 300, content(2 * MIB)
    metadata = {"n" * 100: "v" * (1024 - 100 - 8)}
    answer = await put_small(server, tenant, key, data, content_type="c" * 255, metadata=metadata)
    assert dict(answer.metadata) == metadata
    assert (await get(server, tenant, key)).data == data


@every_way
@pytest.mark.parametrize("mode", [WRITE_MODE_UNSPECIFIED, WRITE_MODE_CREATE])
async def test_create_leaves_what_stands(server: Server, tenant: str, store: Store, mode: Any) -> None:
    """CREATE, which is the default, stores once; then the key is taken, and what stands stays as it is."""
    first = await store(server, tenant, "key", b"first", write_mode=mode)
    told = await failure(store(server, tenant, "key", b"second", write_mode=mode))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ALREADY_EXISTS, "OBJECT_EXISTS", "none")
    read = await get(server, tenant, "key")
    assert (read.data, read.object) == (b"first", first)


@every_way
async def test_overwrite_replaces_whatever_stands(server: Server, tenant: str, store: Store) -> None:
    """OVERWRITE stores where nothing stands, and replaces what does by a new version."""
    first = await store(server, tenant, "key", b"first", write_mode=WRITE_MODE_OVERWRITE, metadata={"a": "b"})
    second = await store(server, tenant, "key", b"second", write_mode=WRITE_MODE_OVERWRITE)
    assert first.version_id != second.version_id
    read = await get(server, tenant, "key")
    assert (read.data, read.object) == (b"second", second)
    assert len(server.stored(tenant)) == 1


@every_way
async def test_if_version_id_replaces_that_version_only(server: Server, tenant: str, store: Store) -> None:
    """It stores over exactly the version named, so once; a version that is not current is a mismatch."""
    first = await store(server, tenant, "key", b"first")
    second = await store(server, tenant, "key", b"second", if_version_id=first.version_id)
    told = await failure(store(server, tenant, "key", b"third", if_version_id=first.version_id))
    assert (told.code, told.reason, told.recovery) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "VERSION_MISMATCH",
        "none",
    )
    read = await get(server, tenant, "key")
    assert (read.data, read.object) == (b"second", second)


RACES: dict[str, tuple[dict[str, Any], str]] = {
    "create": ({"write_mode": WRITE_MODE_CREATE}, "OBJECT_EXISTS"),
    "overwrite nothing": ({"write_mode": WRITE_MODE_OVERWRITE}, "WRITE_CONFLICT"),
    "overwrite": ({"write_mode": WRITE_MODE_OVERWRITE}, "WRITE_CONFLICT"),
    "if version": ({}, "VERSION_MISMATCH"),
}


@pytest.mark.parametrize("race", RACES)
async def test_a_put_overtaken_by_another_commits_nothing(server: Server, tenant: str, race: str) -> None:
    """What counts is what was current when the Put began: the slower one is told, the faster one's object stands."""
    fields, reason = RACES[race]
    if race in {"overwrite", "if version"}:
        before = await put(server, tenant, "key", b"before")
        fields = fields or {"if_version_id": before.version_id}
    slow = server.storage.Put(timeout=TIMEOUT)
    data = content(PART + 1)
    messages = [header(tenant, "key", **fields), *body(pieces_of(data))]
    for message in messages[:-1]:
        await slow.write(message)
    await until(lambda: server.unfinished() != [])  # the first part is being written, so the Put has looked
    await put(server, tenant, "key", b"faster", write_mode=WRITE_MODE_OVERWRITE)
    await slow.write(messages[-1])
    told = await failure(slow.read())
    assert told.reason == reason
    assert (await get(server, tenant, "key")).data == b"faster"
    assert server.unfinished() == []


async def test_tenants_have_keys_of_their_own(server: Server, tenant: str) -> None:
    """The same key of another tenant is another object."""
    other = await register(server, f"{tenant}-other")
    await put(server, tenant, "key", b"one")
    await put(server, other, "key", b"two")
    assert (await get(server, tenant, "key")).data == b"one"
    assert (await get(server, other, "key")).data == b"two"
