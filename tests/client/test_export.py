"""An Export goes on where it can, whatever it is written to, and is never called whole when it is not."""

import errno
import gzip
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from client.broken_exports import ARCHIVE, DAMAGED, OBJECTS, answer, cut, responses, stocked
from client.content import names, noise
from client.destinations import KINDS, exported, kinds
from client.scripted import MIB, Context, ScriptedServer, Step, details, fail
from client.scripted_export import archive_of
from keystow.v1 import storage_pb2 as pb
from keystow_client import (
    AbortedError,
    ArchiveFormat,
    AsyncClient,
    Client,
    DataLossError,
    ErrorPolicy,
    ExportEntry,
    IncompleteError,
    KeystowError,
)

__all__ = ["stocked"]

pytestmark = pytest.mark.usefixtures("stocked")

Code = grpc.StatusCode


@kinds
async def test_every_destination_gets_the_archive(client: AsyncClient, tmp_path: Path, kind: str) -> None:
    """All of the tenant's objects, those with a prefix, or those that are named, in the caller's order."""
    for options, keys in (({}, "abcde"), ({"prefix": "d"}, "d"), ({"keys": iter("ca")}, "ca")):
        data = await exported(client, "acme", KINDS[kind](tmp_path), **options)
        assert data == archive_of([(key, OBJECTS[key]) for key in keys])
    assert names(tmp_path) in ([], ["dest"])


@kinds
async def test_a_tar_archive_goes_on_after_any_message(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    """The next stream has the last checkpoint's token, no byte is missing or doubled, and no entry is told twice."""
    whole = responses(server)
    for messages in range(len(whole)):
        server.storage.requests.clear()
        server.storage.next("Export", cut(server, messages), cut(server, 1))
        entries: list[ExportEntry] = []
        assert await exported(client, "acme", KINDS[kind](tmp_path), on_entry=entries.append) == ARCHIVE
        tokens = [each.checkpoint.checkpoint_token for each in whole[:messages] if each.HasField("checkpoint")]
        expected = tokens[-1] if tokens else b""
        first, second, third = server.storage.requests["Export"]
        assert (first.checkpoint_token, second.checkpoint_token) == (b"", expected)
        third.checkpoint_token = b""
        assert first == third
        assert [entry.key for entry in entries] == list(OBJECTS)
    assert names(tmp_path) in ([], ["dest"])


@kinds
async def test_a_zip_archive_begins_again(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    """Without checkpoints from the first byte; a pipe gets each one once all the same."""
    entries: list[ExportEntry] = []
    server.storage.next("Export", cut(server, 5), cut(server, 3), cut(server, 7))
    data = await exported(
        client, "acme", KINDS[kind](tmp_path), archive_format=ArchiveFormat.ZIP, on_entry=entries.append
    )
    assert data == ARCHIVE
    assert [request.checkpoint_token for request in server.storage.requests["Export"]] == [b""] * 4
    assert [entry.key for entry in entries] == list(OBJECTS)


@pytest.mark.parametrize("newer", [noise(2 * MIB + 7, seed=9), b"short"], ids=["other bytes", "fewer bytes"])
@pytest.mark.parametrize("archive_format", ArchiveFormat)
@kinds
async def test_what_changed_meanwhile_is_never_joined(
    client: AsyncClient,
    server: ScriptedServer,
    tmp_path: Path,
    kind: str,
    archive_format: ArchiveFormat,
    newer: bytes,
) -> None:
    """What can be cut holds the archive as it is now; who has the older bytes already is told that they are void."""

    async def step(request: pb.ExportRequest, context: Context) -> None:
        await cut(server, 4)(request, context)
        server.storage.add("b", newer)

    server.storage.next("Export", step)
    dest = KINDS[kind](tmp_path)
    if kind in ("path", "file"):
        data = await exported(client, "acme", dest, archive_format=archive_format)
        assert data == archive_of(list((OBJECTS | {"b": newer}).items()))
    else:
        with pytest.raises(AbortedError, match="Objects changed"):
            await exported(client, "acme", dest, archive_format=archive_format)


@pytest.mark.parametrize(
    ("code", "reason", "recovery"),
    [
        (Code.DEADLINE_EXCEEDED, "STREAM_STALLED", "resume"),
        (Code.UNAVAILABLE, "SHUTTING_DOWN", "retry"),
        (Code.ABORTED, "OBJECT_CHANGED", "restart"),
    ],
)
async def test_what_the_service_says_helps_is_done(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, code: grpc.StatusCode, reason: str, recovery: str
) -> None:
    """From the last checkpoint, also where an object changed while its member was being sent."""
    ending = fail(code, reason, recovery)
    server.storage.next("Export", cut(server, 8, ending), ending)
    assert await exported(client, "acme", tmp_path / "dest") == ARCHIVE


@pytest.mark.parametrize(
    "ending",
    [
        DAMAGED,
        fail(Code.FAILED_PRECONDITION, "KMS_KEY_DISABLED", "wait"),
        fail(Code.INVALID_ARGUMENT, "CHECKPOINT_TOKEN_INVALID", "restart"),
    ],
)
async def test_other_failures_end_it_at_once(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, ending: Step
) -> None:
    """A path shows nothing then, a file object keeps what it has, and an iterator raises."""
    for dest in (tmp_path / "dest", io.BytesIO(), None):
        server.storage.next("Export", cut(server, 8, ending))
        with pytest.raises(KeystowError) as failure:
            await exported(client, "acme", dest)
        assert failure.value.attempts == 1
    assert len(server.storage.requests["Export"]) == 3
    assert names(tmp_path) == []


async def test_failures_in_a_row_are_bounded(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """An export that gets on may break more often than it may fail in a row."""
    server.storage.next("Export", *[cut(server, messages) for messages in range(1, 8)], *[cut(server, 2)] * 9)
    with pytest.raises(IncompleteError):
        await exported(client, "acme", tmp_path / "dest")
    assert names(tmp_path) == []
    assert 0 < len(server.storage.script["Export"]) < 9


async def test_failed_objects_are_told(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """With CONTINUE the archive is whole without them; the summary and the entries say what is missing, and why."""
    honest = responses(server)
    *_, entry, _, summary = honest
    status: status_pb2.Status = details(Code.DATA_LOSS, "OBJECT_TAMPERED", "none")
    missing = pb.ExportEntry(object=pb.ObjectInfo(tenant_id="acme", key="z"), status=status)
    honest.insert(-1, pb.ExportResponse(entry=missing))
    summary.summary.failed_count, summary.summary.complete = 1, False
    server.storage.next("Export", answer(*honest))
    entries: list[ExportEntry] = []
    told = await client.export("acme", tmp_path / "dest", on_error=ErrorPolicy.CONTINUE, on_entry=entries.append)
    assert (told.complete, told.object_count, told.failed_count) == (False, 5, 1)
    assert (tmp_path / "dest").read_bytes() == ARCHIVE
    assert [(each.key, each.member_name, each.info is None) for each in entries[-2:]] == [
        ("e", "e", False),
        ("z", "", True),
    ]
    error = entries[-1].error
    assert isinstance(error, DataLossError)
    assert error.reason == "OBJECT_TAMPERED"
    assert entry.entry.status.code == 0
    [request] = server.storage.requests["Export"]
    assert request.on_error == pb.ERROR_POLICY_CONTINUE


@pytest.mark.parametrize("deed", ["entry", "checkpoint", "progress"])
async def test_what_a_listener_raises_ends_the_export(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path, deed: str
) -> None:
    """Even a failure that would help against if the service had it is not tried again."""
    error = KeystowError("enough", recovery=IncompleteError("").recovery)

    def raising(_: object) -> None:
        raise error

    names_of = {"entry": "on_entry", "checkpoint": "on_checkpoint", "progress": "progress"}
    with pytest.raises(KeystowError, match="enough"):
        await client.export("acme", tmp_path / "dest", **{names_of[deed]: raising})  # type: ignore[call-overload]  # by name
    assert names(tmp_path) == []
    assert len(server.storage.requests["Export"]) == 1


class Filling:
    """A file object on a disk that fills up."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes | memoryview) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


async def test_a_full_disk_is_the_callers_error(client: AsyncClient, server: ScriptedServer) -> None:
    """What the destination raises reaches the caller, without another attempt."""
    with pytest.raises(OSError, match="No space left") as failure:
        await exported(client, "acme", Filling(2 * MIB))
    assert failure.value.errno == errno.ENOSPC
    assert len(server.storage.requests["Export"]) == 1


async def test_file_objects_are_written_from_where_they_stand(client: AsyncClient, server: ScriptedServer) -> None:
    """What stood there goes, also beyond the archive's end; compressed files, which cannot be cut, are pipes."""
    buffer = io.BytesIO(b"before" + bytes(2 * len(ARCHIVE)))
    buffer.seek(6)
    server.storage.next("Export", cut(server, 4))
    await client.export("acme", buffer)
    assert buffer.getvalue() == b"before" + ARCHIVE
    compressed = io.BytesIO()
    server.storage.next("Export", cut(server, 4))
    with gzip.GzipFile(fileobj=compressed, mode="wb", compresslevel=1) as file:
        await client.export("acme", file)
    assert gzip.decompress(compressed.getvalue()) == ARCHIVE


async def test_a_path_is_spared_unless_it_may_be_replaced(client: AsyncClient, tmp_path: Path) -> None:
    """As Get has it."""
    dest = tmp_path / "dest"
    dest.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await client.export("acme", dest, overwrite=False)
    assert dest.read_bytes() == b"old"
    await client.export("acme", dest)
    assert dest.read_bytes() == ARCHIVE


@pytest.mark.parametrize("dest", ["a/path", 7])
async def test_what_takes_no_bytes_is_refused(client: AsyncClient, dest: Any) -> None:
    """A str or an int is a TypeError."""
    with pytest.raises(TypeError):
        await client.export("acme", dest)


async def test_a_contradictory_selection_is_refused(client: AsyncClient, server: ScriptedServer) -> None:
    """Before anything is asked of the service."""
    with pytest.raises(ValueError, match="exclude"):
        await client.export("acme", prefix="a", keys=["b"])
    with pytest.raises(TypeError, match="list"):
        await client.export("acme", keys="abc")
    assert not server.storage.requests["Export"]


def test_the_synchronous_client_exports_too(sync_client: Client, server: ScriptedServer, tmp_path: Path) -> None:
    """Iterator, path and pipe, each after an interruption; everything of the caller's runs in the caller's thread."""
    threads = set()
    entries: list[str] = []

    def heard(told: object) -> None:
        threads.add(threading.current_thread())
        if isinstance(told, ExportEntry):
            entries.append(told.key)

    def keys() -> Iterator[str]:
        threads.add(threading.current_thread())
        yield from OBJECTS

    server.storage.next("Export", cut(server, 8))
    with sync_client.export("acme", keys=keys(), on_entry=heard) as archive:
        assert b"".join(archive) == ARCHIVE
        assert archive.summary
        assert archive.checkpoint.archive_size > 0
    server.storage.next("Export", cut(server, 8))
    sync_client.export("acme", tmp_path / "dest", on_entry=heard, on_checkpoint=heard, progress=heard)
    assert (tmp_path / "dest").read_bytes() == ARCHIVE
    reading, writing = os.pipe()
    taken: list[bytes] = []
    reader = threading.Thread(target=lambda: taken.append(Path(f"/dev/fd/{reading}").read_bytes()))
    reader.start()
    server.storage.next("Export", cut(server, 8))
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        sync_client.export("acme", pipe, on_entry=heard)
    reader.join()
    os.close(reading)
    assert taken == [ARCHIVE]
    assert entries == [*OBJECTS] * 3
    assert threads == {threading.current_thread()}


def test_an_export_can_be_left_early(sync_client: Client, server: ScriptedServer) -> None:
    """Leaving the context ends the call on the server."""
    server.storage.add("z", bytes(30 * MIB))
    ended = threading.Event()

    async def step(request: pb.ExportRequest, context: Context) -> None:
        try:
            await server.storage.export(request, context)
        finally:
            ended.set()

    server.storage.next("Export", step)
    with sync_client.export("acme") as archive:
        next(archive)
    assert ended.wait(30)
    assert archive.summary is None
