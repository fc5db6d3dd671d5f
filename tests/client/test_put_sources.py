"""Every kind of source, in every size that touches an edge, arrives byte for byte."""

import asyncio
import contextlib
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.content import noise
from client.scripted import ScriptedServer
from keystow_client import AsyncClient, Client, SourceChangedError, WriteMode
from keystow_client.sources import open_source
from keystow_client.threads import TransferThread

MIB = 1 << 20
VERSION = Path("/proc/version").read_bytes()
SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7]


class Collection:
    """Bytes that can be iterated as often as one likes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return iter(pieces(self._data))


def pieces(data: bytes) -> list[bytes]:
    """Cut at places that have nothing to do with chunks; some pieces are empty."""
    cuts = sorted(len(data) * n * n // 100 + min(n, len(data)) // 10 for n in range(9))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def async_pieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(data):
        yield piece


def small_pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 7919):
        yield data[start : start + 7919]


def reused_buffer(data: bytes) -> Iterator[memoryview]:
    """As readers do that fill one buffer over and over."""
    buffer = bytearray(300_000)
    for start in range(0, len(data), len(buffer)):
        piece = data[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


async def async_reused_buffer(data: bytes) -> AsyncIterator[bytearray]:
    buffer = bytearray()
    for start in range(0, len(data), 300_000):
        buffer += data[start : start + 300_000]
        yield buffer
        buffer.clear()


def pipe(data: bytes) -> io.BufferedReader:
    """The reading end of a pipe that somebody fills."""
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    threading.Thread(target=fill, daemon=True).start()
    return os.fdopen(reading, "rb")


KINDS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "file object": io.BytesIO,
    "pipe": pipe,
    "iterator": lambda data: iter(pieces(data)),
    "collection": Collection,
    "one piece": lambda data: iter([data]),
    "small pieces": small_pieces,
    "reused buffer": reused_buffer,
    "async iterator": async_pieces,
    "async reused buffer": async_reused_buffer,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_source_arrives_whole(client: AsyncClient, server: ScriptedServer, kind: str, size: int) -> None:
    """Whatever the source is, the server gets its bytes, and the client learns what was stored."""
    data = noise(size)
    source = KINDS[kind](data)
    info = await client.put("acme", "k", source)
    if kind == "pipe":
        source.close()
    assert server.storage.objects["acme", "k"].data == data
    assert (info.tenant_id, info.key, info.size) == ("acme", "k", size)


@pytest.mark.parametrize("size", SIZES)
async def test_a_path_arrives_whole(client: AsyncClient, server: ScriptedServer, tmp_path: Path, size: int) -> None:
    """A path is read to its end, and closed."""
    path = tmp_path / "source"
    path.write_bytes(noise(size))
    await client.put("acme", "k", path)
    assert server.storage.objects["acme", "k"].data == path.read_bytes()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_synchronous_client_takes_the_same_sources(
    sync_client: Client, server: ScriptedServer, kind: str, size: int
) -> None:
    """The synchronous client reads each kind as the asynchronous one does."""
    data = noise(size)
    source = KINDS[kind](data)
    sync_client.put("acme", "k", source)
    if kind == "pipe":
        source.close()
    assert server.storage.objects["acme", "k"].data == data


async def test_chunks_are_one_mebibyte_each_and_carry_checksums(client: AsyncClient, server: ScriptedServer) -> None:
    """All chunks but the last are exactly 1 MiB, aligned, and checksummed."""
    await client.put("acme", "k", small_pieces(bytes(3 * MIB + 7)))
    assert server.storage.requests["chunk"] == [
        (0, MIB, True),
        (MIB, MIB, True),
        (2 * MIB, MIB, True),
        (3 * MIB, 7, True),
    ]


async def test_the_size_is_announced_where_it_is_known(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """Bytes, files and callers know the size; iterators and pipes do not."""
    data = bytes(2 * MIB)
    path = tmp_path / "source"
    path.write_bytes(data)
    sources: list[Any] = [data, path, io.BytesIO(data), iter([data])]
    for number, source in enumerate(sources):
        await client.put("acme", f"k{number}", source)
    await client.put("acme", "told", iter([data]), size=len(data))
    sizes = [header.size if header.HasField("size") else None for header in server.storage.requests["header"]]
    assert sizes == [len(data)] * 3 + [None, len(data)]


async def test_small_objects_travel_in_one_message(client: AsyncClient, server: ScriptedServer) -> None:
    """Below 1 MiB no stream is opened, whether or not the size was known."""
    await client.put("acme", "a", bytes(MIB - 1))
    await client.put("acme", "b", iter([b"x", b"y"]))
    assert len(server.storage.requests["PutSmall"]) == 2
    assert not server.storage.requests["Put"]


async def test_a_file_object_is_read_from_where_it_stands(client: AsyncClient, server: ScriptedServer) -> None:
    """Only what lies ahead in the file is stored."""
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    await client.put("acme", "k", file)
    assert server.storage.objects["acme", "k"].data == b"456789"


async def test_a_proc_file_of_unknown_length_is_stored(client: AsyncClient, server: ScriptedServer) -> None:
    """Files that claim to be empty and are not, as in /proc, are read all the same."""
    await client.put("acme", "k", Path("/proc/version"))
    assert server.storage.objects["acme", "k"].data == VERSION


@pytest.mark.parametrize("size", [10, 2 * MIB])
@pytest.mark.parametrize("promised", [-1, 1])
async def test_a_source_of_another_size_stores_nothing(
    client: AsyncClient, server: ScriptedServer, size: int, promised: int
) -> None:
    """A source that is longer or shorter than promised is an error of its own."""
    with pytest.raises(SourceChangedError, match="Nothing was stored"):
        await client.put("acme", "k", iter([bytes(size)]), size=size + promised)
    assert not server.storage.objects


@pytest.mark.parametrize("source", ["a/path", io.StringIO("text"), 7, iter(["text"]), iter([5])])
async def test_what_has_no_bytes_is_refused(client: AsyncClient, server: ScriptedServer, source: Any) -> None:
    """A str, a text file, an int and iterators of them are a TypeError, and nothing is stored."""
    with pytest.raises(TypeError):
        await client.put("acme", "k", source)
    assert not server.storage.objects


async def test_a_source_that_fails_ends_the_put(client: AsyncClient, server: ScriptedServer) -> None:
    """What the source raises reaches the caller, and nothing is stored."""

    def failing() -> Iterator[bytes]:
        yield bytes(3 * MIB)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await client.put("acme", "k", failing())
    assert not server.storage.objects


async def test_a_missing_path_is_an_os_error(client: AsyncClient, tmp_path: Path) -> None:
    """The operating system's answer is the caller's answer."""
    with pytest.raises(FileNotFoundError):
        await client.put("acme", "k", tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        await client.put("acme", "k", tmp_path)


async def test_header_fields_arrive(client: AsyncClient, server: ScriptedServer) -> None:
    """Content type, metadata, mode and upload id are sent as given, on both ways of putting."""
    for size in (1, 2 * MIB):
        info = await client.put(
            "acme",
            "k",
            bytes(size),
            content_type="text/plain",
            metadata={"from": "test"},
            mode=WriteMode.OVERWRITE,
            upload_id=f"upload-{size}",
        )
        assert (info.content_type, info.metadata, info.crc32c is not None) == ("text/plain", {"from": "test"}, True)
        assert server.storage.objects["acme", "k"].upload_id == f"upload-{size}"


async def test_a_version_to_replace_excludes_a_mode(client: AsyncClient, server: ScriptedServer) -> None:
    """if_version_id replaces that version only, and cannot be combined with overwriting any."""
    first = await client.put("acme", "k", b"1")
    second = await client.put("acme", "k", b"2", if_version_id=first.version_id)
    assert server.storage.objects["acme", "k"].data == b"2"
    with pytest.raises(ValueError, match="leave mode out"):
        await client.put("acme", "k", b"3", if_version_id=second.version_id, mode=WriteMode.OVERWRITE)


async def test_sha256_is_sent_and_compared(client: AsyncClient, server: ScriptedServer) -> None:
    """verify_sha256 always streams, for only a stream carries the digest."""
    info = await client.put("acme", "k", b"data", verify_sha256=True)
    assert info.sha256 == hashlib.sha256(b"data").digest()
    assert server.storage.requests["finish"][0].sha256 == info.sha256


async def test_progress_tells_the_bytes_sent(client: AsyncClient) -> None:
    """The callback hears growing counts that end with the size."""
    heard: list[int] = []
    await client.put("acme", "k", bytes(2 * MIB + 1), progress=heard.append)
    await client.put("acme", "s", b"12", progress=heard.append)
    assert heard == [MIB, 2 * MIB, 2 * MIB + 1, 2]


async def test_a_file_that_is_opened_too_late_is_closed(tmp_path: Path) -> None:
    """Who is cancelled while the thread still opens the file leaves no file open."""
    path = tmp_path / "source"
    path.write_bytes(b"content")
    thread = TransferThread()
    opening = asyncio.create_task(open_source(path, None, thread))
    await asyncio.sleep(0)  # it waits for the thread now
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    thread.stop()
    thread.serve()
    assert path not in open_files()


def open_files() -> set[Path]:
    """What this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(descriptor.readlink())
    return found
