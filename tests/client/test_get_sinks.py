"""Every kind of destination gets the object whole, and a path never shows less than that."""

import io
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from client.content import names, noise
from client.scripted import MIB, Context, ScriptedServer, Step, Stored, answer_get, fail, get_responses
from keystow.v1 import storage_pb2 as pb
from keystow_client import AsyncClient, Client, IncompleteError, IntegrityError, KeystowError

SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


async def stored(client: AsyncClient, size: int) -> bytes:
    """An object of that size under acme:k."""
    data = noise(size)
    await client.put("acme", "k", data)
    return data


@pytest.mark.parametrize("size", SIZES)
async def test_an_iterator_gives_the_object(client: AsyncClient, size: int) -> None:
    """Iterating gives all bytes, and the object's description before them."""
    data = await stored(client, size)
    async with await client.get("acme", "k") as download:
        assert (download.info.size, download.offset, download.length) == (size, 0, size)
        assert b"".join([chunk async for chunk in download]) == data


@pytest.mark.parametrize("size", SIZES)
async def test_a_path_gets_the_object(client: AsyncClient, tmp_path: Path, size: int) -> None:
    """The file holds all bytes, and nothing else is left beside it."""
    data = await stored(client, size)
    info = await client.get("acme", "k", tmp_path / "dest")
    assert info.size == size
    assert (tmp_path / "dest").read_bytes() == data
    assert names(tmp_path) == ["dest"]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_object_gets_the_object(client: AsyncClient, tmp_path: Path, size: int) -> None:
    """File objects are written to from where they stand, raw ones to the last byte."""
    data = await stored(client, size)
    buffer = io.BytesIO()
    buffer.write(b"before")
    await client.get("acme", "k", buffer)
    assert buffer.getvalue() == b"before" + data
    with (tmp_path / "raw").open("wb", buffering=0) as raw:
        await client.get("acme", "k", raw)
    assert (tmp_path / "raw").read_bytes() == data


async def test_an_object_that_only_writes_is_enough(client: AsyncClient) -> None:
    """Anything with a write method is a destination, even if it does not count what it took."""

    class Collector:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: bytes | memoryview) -> None:
            self.taken += data

    data = await stored(client, 2 * MIB)
    collector = Collector()
    await client.get("acme", "k", collector)
    assert collector.taken == data


def test_the_synchronous_client_gets_into_everything(sync_client: Client, tmp_path: Path) -> None:
    """Iterator, path and file object, synchronously."""
    data = noise(2 * MIB + 5)
    sync_client.put("acme", "k", data)
    with sync_client.get("acme", "k") as download:
        assert (download.info.key, download.length) == ("k", len(data))
        assert b"".join(download) == data
    sync_client.get("acme", "k", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == data
    buffer = io.BytesIO()
    heard: list[int] = []
    sync_client.get("acme", "k", buffer, progress=heard.append)
    assert buffer.getvalue() == data
    assert heard == [MIB, 2 * MIB, 2 * MIB + 5]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (2, 3, b"234"),
        (-3, None, b"789"),
        (-3, 1, b"7"),
        (-99, 2, b"01"),
        (10, 5, b""),
    ],
)
async def test_a_range_is_fetched(client: AsyncClient, offset: int, length: int | None, expected: bytes) -> None:
    """Offsets count from either end, and lengths are clipped to the object."""
    await client.put("acme", "k", b"0123456789")
    async with await client.get("acme", "k", offset=offset, length=length) as download:
        assert b"".join([chunk async for chunk in download]) == expected
        assert download.length == len(expected)


async def test_an_existing_file_is_replaced_or_spared(client: AsyncClient, tmp_path: Path) -> None:
    """By default a file is replaced and hands on its permissions; without overwrite it is left alone."""
    await stored(client, 5)
    dest = tmp_path / "dest"
    dest.write_bytes(b"old")
    dest.chmod(0o600)
    with pytest.raises(FileExistsError):
        await client.get("acme", "k", dest, overwrite=False)
    assert dest.read_bytes() == b"old"
    await client.get("acme", "k", dest)
    assert dest.stat().st_size == 5
    assert dest.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["dest"]


async def test_a_name_taken_during_the_download_is_spared(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """Without overwrite, a file that appears while the object is fetched is not lost."""
    await stored(client, 5)
    dest = tmp_path / "dest"

    async def step(request: pb.GetRequest, context: Context) -> None:
        dest.write_bytes(b"new")
        await server.storage.get(request, context)

    server.storage.next("Get", step)
    with pytest.raises(FileExistsError):
        await client.get("acme", "k", dest, overwrite=False)
    assert dest.read_bytes() == b"new"
    assert names(tmp_path) == ["dest"]


async def test_a_symbolic_link_is_replaced_not_followed(client: AsyncClient, tmp_path: Path) -> None:
    """The link's target stays as it was."""
    await stored(client, 5)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    await client.get("acme", "k", tmp_path / "link")
    assert target.read_bytes() == b"old"
    assert (tmp_path / "link").stat().st_size == 5


async def test_directories_and_special_files_are_no_destination(client: AsyncClient, tmp_path: Path) -> None:
    """Neither a directory nor a device is replaced by a file, nor is a missing directory made."""
    await stored(client, 5)
    with pytest.raises(IsADirectoryError):
        await client.get("acme", "k", tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="Neither a file"):
        await client.get("acme", "k", tmp_path / "fifo")
    with pytest.raises(FileNotFoundError, match="missing/dest"):
        await client.get("acme", "k", tmp_path / "missing" / "dest")
    assert names(tmp_path) == ["fifo"]


@pytest.mark.parametrize("dest", ["a/path", 7])
async def test_what_takes_no_bytes_is_refused(client: AsyncClient, dest: Any) -> None:
    """A str or an int is a TypeError."""
    with pytest.raises(TypeError):
        await client.get("acme", "k", dest)


def altered(message: Message, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(message, name, value)


# An honest answer of header, two chunks and finish, with one thing wrong.
REORDERED: dict[str, Callable[..., list[pb.GetResponse]]] = {
    "nothing": lambda *_: [],
    "no header": lambda _, first, second, finish: [first, second, finish],
    "no finish": lambda header, first, second, _: [header, first, second],
    "header only": lambda header, *_: [header],
    "first chunk missing": lambda header, _, second, finish: [header, second, finish],
    "last chunk missing": lambda header, first, _, finish: [header, first, finish],
    "chunk repeated": lambda header, first, second, finish: [header, first, first, second, finish],
    "chunks swapped": lambda header, first, second, finish: [header, second, first, finish],
    "second header": lambda header, first, second, finish: [header, first, header, second, finish],
    "something after the end": lambda *honest: [*honest, honest[-1]],
}
ALTERED: dict[str, Callable[..., None]] = {
    "chunk checksum": lambda _, first, *__: altered(first.chunk, crc32c=first.chunk.crc32c ^ 1),
    "chunk altered": lambda _, first, *__: altered(first.chunk, data=b"?" + first.chunk.data[1:]),
    "second chunk too long": lambda _, __, second, ___: altered(second.chunk, data=second.chunk.data + b"?"),
    "whole checksum": lambda *honest: altered(honest[-1].finish, crc32c=honest[-1].finish.crc32c ^ 1),
    "object checksum": lambda header, *_: altered(header.header.object, crc32c=1),
    "another offset": lambda header, *_: altered(header.header, offset=1),
    "another length": lambda header, *_: altered(header.header, length=header.header.length - 1),
}


def hostile(stored: Stored, what: str, *, checksums: bool = True) -> Step:
    """A step that answers wrongly."""
    honest = get_responses(stored, pb.GetRequest())
    if what in ALTERED:
        ALTERED[what](*honest)
    if not checksums:
        for response in honest[1:-1]:
            response.chunk.ClearField("crc32c")
    return answer_get(*(REORDERED[what](*honest) if what in REORDERED else honest))


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("what", [*REORDERED, *(what for what in ALTERED if what != "chunk checksum")])
async def test_a_stream_that_does_not_hold_together_is_never_complete(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, what: str, *, checksums: bool
) -> None:
    """With or without checksums on chunks, an iterator raises, and a path gets nothing until an attempt is right."""
    data = await stored(client, MIB + 5)
    wrong = hostile(server.storage.objects["acme", "k"], what, checksums=checksums)

    server.storage.next("Get", *[wrong] * 6)
    with pytest.raises((IncompleteError, IntegrityError)):
        await exhausted(client)
    server.storage.script["Get"].clear()

    server.storage.next("Get", *[wrong] * 6)
    with pytest.raises((IncompleteError, IntegrityError)) as failure:
        await client.get("acme", "k", tmp_path / "dest")
    assert failure.value.attempts == 6
    assert names(tmp_path) == []

    server.storage.next("Get", wrong)
    await client.get("acme", "k", tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == data


async def exhausted(client: AsyncClient) -> list[bytes]:
    """All chunks of acme:k."""
    async with await client.get("acme", "k") as download:
        return [chunk async for chunk in download]


async def test_a_chunk_with_a_wrong_checksum_is_not_handed_on(client: AsyncClient, server: ScriptedServer) -> None:
    """The caller sees no byte of it."""
    await stored(client, MIB + 5)
    server.storage.next("Get", hostile(server.storage.objects["acme", "k"], "chunk checksum"))
    async with await client.get("acme", "k") as download:
        with pytest.raises(IntegrityError, match="checksum"):
            await anext(download)


async def test_another_version_than_asked_for_is_refused(client: AsyncClient, server: ScriptedServer) -> None:
    """A server that ignores version_id is found out."""
    await stored(client, 5)
    responses = get_responses(server.storage.objects["acme", "k"], pb.GetRequest())
    server.storage.next("Get", *[answer_get(*responses)] * 6)
    with pytest.raises(IntegrityError, match="another version"):
        await client.get("acme", "k", version_id="v99")


async def test_empty_chunks_keep_a_stream_alive(client: AsyncClient, server: ScriptedServer) -> None:
    """They are part of the protocol, and not handed on."""
    await stored(client, 5)
    responses = get_responses(server.storage.objects["acme", "k"], pb.GetRequest())
    empty = pb.GetResponse(chunk=pb.Chunk(offset=0))
    server.storage.next("Get", answer_get(responses[0], empty, empty, *responses[1:]))
    assert len([chunk async for chunk in await client.get("acme", "k")]) == 1


async def test_a_failed_get_leaves_no_file_behind(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """Neither a part nor an empty file stays after a failure in the middle."""
    await stored(client, 2 * MIB)

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(server.storage.objects["acme", "k"], request)[:2]:
            await context.write(response)
        await fail(grpc.StatusCode.DATA_LOSS, "OBJECT_TAMPERED", "none")(request, context)

    server.storage.next("Get", step)
    with pytest.raises(KeystowError) as failure:
        await client.get("acme", "k", tmp_path / "dest")
    assert failure.value.reason == "OBJECT_TAMPERED"
    assert names(tmp_path) == []


async def test_a_full_disk_is_the_callers_error(client: AsyncClient) -> None:
    """What the destination raises reaches the caller, without another attempt."""
    await stored(client, 5)
    with FileIO("/dev/full", "w") as full, pytest.raises(OSError, match="No space left"):
        await client.get("acme", "k", full)
