"""Resumable Puts through a real channel, on the local store and on S3: nothing that was persisted is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import (
    WRITE_MODE_OVERWRITE,
    AbortPutRequest,
    DeleteRequest,
    ObjectInfo,
    StatRequest,
)
from rpc.interrupted import PART, ResumablePut, begin, expect_one_or_none, interrupted, resume, rival
from rpc.wire import (
    MIB,
    TIMEOUT,
    Failure,
    chunk,
    content,
    failure,
    finish,
    get,
    header,
    new_upload_id,
    put,
    told_by,
    until,
)
from servers.in_process import DATA_CENTER, Server, register, serving
from servers.moto import MotoServer, moto
from servers.on_aws import aws_place

__all__ = ["moto"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(3 * PART + MIB // 2)
OTHER_DATA = content(len(DATA), "other")


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two servers over the same store, keys and registry, a tenant, and what uploads have left in the store."""

    first: Server
    second: Server
    tenant: str
    unfinished: Callable[[], int]
    # What moto does not do as S3: hold a multipart commit to If-Match, know that an upload is gone when a part comes,
    # and tell a damaged ciphertext from another account's.
    moto: bool


@asynccontextmanager
async def _on_this_machine(data_dir: Path, _: MotoServer) -> AsyncIterator[Replicas]:
    async with serving(data_dir) as first, serving(data_dir) as second:
        yield Replicas(first, second, await register(first, "acme"), lambda: len(first.unfinished()), moto=False)


@asynccontextmanager
async def _on_aws(data_dir: Path, moto: MotoServer) -> AsyncIterator[Replicas]:
    with pytest.MonkeyPatch.context() as patch, aws_place(moto, patch) as (place, bucket):
        settings = {"deployment_id": "tests", "data_centers": {DATA_CENTER: place}}
        async with serving(data_dir, **settings) as first, serving(data_dir, **settings) as second:
            yield Replicas(first, second, await register(first, "acme"), lambda: len(bucket.unfinished()), moto=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[_on_this_machine, _on_aws], ids=["local", "s3"])
async def replicas(
    request: pytest.FixtureRequest, moto: MotoServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replicas]:
    """Both kinds of store."""
    async with request.param(tmp_path_factory.mktemp("data"), moto) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _nothing_before(replicas: Replicas) -> None:
    """Each test begins without the object; what uploads left before, others have to remove."""
    await replicas.first.storage.Delete(DeleteRequest(tenant_id=replicas.tenant, key="key", allow_missing=True))


async def cut(replicas: Replicas, persisted: int = PART, data: bytes = DATA, **fields: Any) -> ResumablePut:
    """An upload on the first server that lost its stream."""
    return await interrupted(replicas.first, replicas.tenant, data, persisted, **fields)


async def continued(server: Server, before: ResumablePut, token: bytes, data: bytes = DATA) -> ObjectInfo:
    """What an interrupted upload gives when it goes on from ``token`` to its end."""
    stream = await resume(server, before, token)
    start = (await stream.told()).persisted_size
    await stream.send(data, start)
    return await stream.end(len(data), crc32c=google_crc32c.value(data))


async def read(replicas: Replicas) -> bytes:
    """The object, whole."""
    return (await get(replicas.second, replicas.tenant, "key")).data


async def refused(stream: ResumablePut) -> Failure:
    """What a stream that must fail ends with."""
    return await failure(stream.result())


# --- Progress ---------------------------------------------------------------------------------------------------------


async def test_progress_begins_at_zero_and_the_result_comes_last(replicas: Replicas) -> None:
    """The first token comes before any chunk is sent; later ones name whole parts, each more than the one before."""
    stream = await begin(replicas.first, replicas.tenant, size=len(DATA))
    first = await stream.told()
    assert first.persisted_size == 0
    assert timedelta(days=6) < first.expire_time.ToDatetime(UTC) - datetime.now(UTC) <= timedelta(days=7)
    await stream.send(DATA)
    info = await stream.end(len(DATA))
    sizes = [each.persisted_size for each in stream.progress]
    assert sizes == sorted(set(sizes))
    assert all(size % PART == 0 for size in sizes)
    assert info.size == len(DATA)
    assert await read(replicas) == DATA
    assert replicas.unfinished() == 0


async def test_progress_comes_while_the_client_pauses(replicas: Replicas) -> None:
    """A client that waits for its bytes to be safe before it sends more is told, without having to send more."""
    stream = await begin(replicas.first, replicas.tenant)
    await stream.send(DATA[: 2 * PART + 1])
    assert (await stream.told_of(2 * PART)).persisted_size == 2 * PART
    await stream.send(DATA, 2 * PART + 1)
    await stream.end(len(DATA))
    assert await read(replicas) == DATA


async def test_without_resumable_nothing_is_told(replicas: Replicas) -> None:
    """Such a Put answers its result alone, and a cut one leaves nothing."""
    await put(replicas.first, replicas.tenant, "key", DATA)  # fails on anything but one result
    call = replicas.first.storage.Put(timeout=TIMEOUT)
    await call.write(header(replicas.tenant, "other", size=len(DATA)))
    for offset in range(0, 2 * PART, MIB):
        await call.write(chunk(offset, DATA[offset : offset + MIB]))
    await until(lambda: replicas.unfinished() == 1)
    call.cancel()
    await until(lambda: replicas.unfinished() == 0)


@pytest.mark.parametrize("size", [0, 1, MIB, PART])
async def test_small_objects_may_be_resumable_too(replicas: Replicas, size: int) -> None:
    """An object of no more than one part only ever has its first token, and that one continues it."""
    data = DATA[:size]
    stream = await begin(replicas.first, replicas.tenant, size=size)
    await stream.told()
    stream.call.cancel()
    await continued(replicas.second, stream, stream.progress[-1].resume_token, data)
    assert await read(replicas) == data


# --- Going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("persisted", [0, PART, 3 * PART])
@pytest.mark.parametrize("size", [None, len(DATA)])
async def test_a_cut_put_is_continued_on_another_server(replicas: Replicas, persisted: int, size: int | None) -> None:
    """With nothing but the token, from where it stands, and with everything that its header said."""
    metadata = {"name": "värde"}
    before = await cut(replicas, persisted, size=size, content_type="text/plain", metadata=metadata)
    last = before.progress[-1]
    stream = await resume(replicas.second, before, last.resume_token)
    assert (await stream.told()).persisted_size == last.persisted_size
    await stream.send(DATA, last.persisted_size)
    info = await stream.end(len(DATA), crc32c=google_crc32c.value(DATA))
    found = await get(replicas.first, replicas.tenant, "key")
    assert found.data == DATA
    assert found.object == info
    assert (info.content_type, dict(info.metadata)) == ("text/plain", metadata)
    assert replicas.unfinished() == 0


async def test_every_token_of_an_upload_continues_it(replicas: Replicas) -> None:
    """Also an old one: what came after it is sent again."""
    before = await cut(replicas, 3 * PART)
    info = await continued(replicas.second, before, before.progress[0].resume_token)
    assert info.size == len(DATA)
    assert await read(replicas) == DATA


async def test_an_upload_may_be_cut_again_and_again(replicas: Replicas) -> None:
    """Each stream adds a part, each on the other server."""
    stream = await begin(replicas.first, replicas.tenant)
    for part, server in enumerate([replicas.second, replicas.first, replicas.second], start=1):
        await stream.send(DATA[: part * PART + 1], (part - 1) * PART)
        last = await stream.told_of(part * PART)
        stream.call.cancel()
        stream = await resume(server, stream, last.resume_token)
    await stream.send(DATA, 3 * PART)
    await stream.end(len(DATA), crc32c=google_crc32c.value(DATA))
    assert await read(replicas) == DATA


async def test_a_lost_answer_is_given_again(replicas: Replicas) -> None:
    """The commit was carried out, its answer lost: the last token gives it again, also without the bytes."""
    stream = await begin(replicas.first, replicas.tenant)
    await stream.send(DATA)
    last = await stream.told_of(3 * PART)
    info = await stream.end(len(DATA))
    assert await continued(replicas.second, stream, last.resume_token) == info
    again = await resume(replicas.second, stream, last.resume_token)
    assert await again.end(len(DATA), crc32c=google_crc32c.value(DATA)) == info


async def test_a_continued_put_repeats_the_header_in_vain(replicas: Replicas) -> None:
    """After its commit, the Put repeated from the beginning under its upload_id gives the same answer."""
    before = await cut(replicas)
    info = await continued(replicas.second, before, before.progress[-1].resume_token)
    assert await put(replicas.first, replicas.tenant, "key", DATA, upload_id=before.upload_id) == info


async def test_chunks_begin_where_the_token_stands(replicas: Replicas) -> None:
    """A chunk of elsewhere is refused, and the refusal says where to go on."""
    before = await cut(replicas, 2 * PART)
    last = before.progress[-1]
    stream = await resume(replicas.second, before, last.resume_token)
    await stream.call.write(chunk(0, DATA[:MIB]))
    told = await refused(stream)
    assert (told.reason, told.recovery) == ("OFFSET_MISMATCH", "resume")
    assert told.metadata is not None
    assert told.metadata["persistedSize"] == str(last.persisted_size)


async def test_the_condition_is_that_of_the_beginning(replicas: Replicas) -> None:
    """What replaced the old version meanwhile is not overwritten."""
    if replicas.moto:
        pytest.skip("moto does not hold a multipart commit to If-Match")
    first, tenant = replicas.first, replicas.tenant
    await put(first, tenant, "key", b"old")
    before = await cut(replicas, write_mode=WRITE_MODE_OVERWRITE)
    await put(first, tenant, "key", b"newer", write_mode=WRITE_MODE_OVERWRITE)
    stream = await resume(replicas.second, before, before.progress[-1].resume_token)
    await stream.send(DATA, before.progress[-1].persisted_size)
    await stream.call.write(finish(len(DATA)))
    assert (await refused(stream)).reason == "WRITE_CONFLICT"
    assert await read(replicas) == b"newer"


# --- Two streams of one upload ----------------------------------------------------------------------------------------


async def test_a_stream_that_was_overtaken(replicas: Replicas) -> None:
    """It ends after another one has gone on from its token: one of the two contents is stored, and both are told."""
    old = await begin(replicas.first, replicas.tenant)
    await old.send(OTHER_DATA[: 2 * PART + 1])
    new = await resume(replicas.second, old, (await old.told_of(PART)).resume_token)
    start = (await new.told()).persisted_size
    data = OTHER_DATA[:start] + DATA[start:]
    await new.send(data, start)
    await new.told_of(3 * PART)
    ends = [await _end(old, OTHER_DATA[: 2 * PART + 1]), await _end(new, data)]
    await expect_one_or_none(replicas.first, old, ends, [OTHER_DATA[: 2 * PART + 1], data], moto=replicas.moto)


async def test_two_streams_at_once_never_mix(replicas: Replicas) -> None:
    """Both continue from one token with different bytes, side by side: one or none of them commits, whole."""
    before = await cut(replicas)
    last = before.progress[-1]
    contents = [DATA, DATA[: last.persisted_size] + OTHER_DATA[last.persisted_size :]]
    ends = await asyncio.gather(
        rival(replicas.first, before, last, contents[0]), rival(replicas.second, before, last, contents[1])
    )
    await expect_one_or_none(replicas.first, before, ends, contents, moto=replicas.moto)


async def _end(stream: ResumablePut, data: bytes) -> ObjectInfo | Failure:
    try:
        return await stream.end(len(data), crc32c=google_crc32c.value(data))
    except grpc.aio.AioRpcError as error:
        return told_by(error)


async def test_a_token_of_parts_that_were_sent_again(replicas: Replicas) -> None:
    """One who went on from an older token has replaced parts: the newer token is of no use any more."""
    before = await cut(replicas, 3 * PART)
    newest, oldest = before.progress[-1], before.progress[0]
    stream = await resume(replicas.first, before, oldest.resume_token)
    await stream.send(DATA)
    await stream.told_of(3 * PART)
    told = await refused(await resume(replicas.second, before, newest.resume_token))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ABORTED, "UPLOAD_SUPERSEDED", "none")
    await stream.end(len(DATA))
    assert await read(replicas) == DATA


# --- The end of an upload ---------------------------------------------------------------------------------------------


def abort_request(before: ResumablePut, token: bytes) -> AbortPutRequest:
    return AbortPutRequest(tenant_id=before.tenant, key=before.key, upload_id=before.upload_id, resume_token=token)


async def test_an_aborted_upload_is_gone(replicas: Replicas) -> None:
    """Nothing of it stays in the store; its tokens say so; aborting it again is no error."""
    others = replicas.unfinished()
    before = await cut(replicas, 2 * PART)
    assert replicas.unfinished() > others
    token = before.progress[-1].resume_token
    for _ in range(2):
        await replicas.second.storage.AbortPut(abort_request(before, token))
        assert replicas.unfinished() == others
    told = await refused(await resume(replicas.first, before, token))
    assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ABORTED, "UPLOAD_EXPIRED", "restart")


async def test_aborting_ends_the_running_stream(replicas: Replicas) -> None:
    """It commits nothing."""
    stream = await begin(replicas.first, replicas.tenant)
    await stream.send(DATA)
    token = (await stream.told_of(3 * PART)).resume_token
    await replicas.second.storage.AbortPut(abort_request(stream, token))
    await stream.call.write(finish(len(DATA)))
    assert (await refused(stream)).reason == ("STORE_UNAVAILABLE" if replicas.moto else "UPLOAD_EXPIRED")
    missing = await failure(replicas.first.storage.Stat(StatRequest(tenant_id=replicas.tenant, key="key")))
    assert missing.reason == "OBJECT_NOT_FOUND"


async def test_aborting_after_the_commit_keeps_the_object(replicas: Replicas) -> None:
    """AbortPut discards uploads, never objects."""
    stream = await begin(replicas.first, replicas.tenant)
    await stream.send(DATA)
    token = (await stream.told_of(PART)).resume_token
    await stream.end(len(DATA))
    await replicas.second.storage.AbortPut(abort_request(stream, token))
    assert await read(replicas) == DATA


# --- Tokens -----------------------------------------------------------------------------------------------------------


async def test_tokens_are_of_one_upload(replicas: Replicas) -> None:
    """Under another key, upload or tenant, or changed anywhere, a token is refused, and changes nothing."""
    before = await cut(replicas)
    token = before.progress[-1].resume_token
    other_tenant = "umbrella"
    with suppress(grpc.aio.AioRpcError):  # registered by the run of the other store
        await register(replicas.first, other_tenant)
    strangers = [
        replace(before, key="other"),
        replace(before, upload_id=new_upload_id()),
        replace(before, tenant=other_tenant),
    ]
    attempts = [(stranger, token) for stranger in strangers]
    flips = [len(token) - 1] if replicas.moto else range(0, len(token), 61)
    attempts += [(before, bytes([*token[:at], token[at] ^ 1, *token[at + 1 :]])) for at in flips]
    attempts += [(before, token[:-1]), (before, token + b"\0")]
    for stranger, forged in attempts:
        told = await refused(await resume(replicas.second, stranger, forged))
        assert (told.reason, told.recovery) == ("RESUME_TOKEN_INVALID", "restart")
        assert (await failure(replicas.second.storage.AbortPut(abort_request(stranger, forged)))).reason == told.reason
    await continued(replicas.second, before, token)
    assert await read(replicas) == DATA
