"""Exports from a real server over connections that break: the archive is the one that no interruption had."""

import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from client.conftest import PATIENT
from client.content import names
from client.destinations import KINDS, Pipe, content_of, exported, kinds
from client.exporting import MEMBERS, OBJECTS, TENANT, Exporting, members_of, registered, without_manifests
from client.relay import Relay
from keystow_client import (
    AbortedError,
    ArchiveFormat,
    AsyncClient,
    Client,
    ErrorPolicy,
    ExportEntry,
    KeystowError,
    WriteMode,
)
from objects.damage import flip
from objects.unpackers import files_below, untar_here

MIB = 1 << 20


def test_an_export_is_what_was_stored(exporting: Exporting, tmp_path: Path) -> None:
    """Python's tarfile and the system's tar find every object."""
    assert members_of(exporting.archive) == MEMBERS
    with Client(exporting.server.address) as client:
        client.export(TENANT, tmp_path / "acme.tar")
        client.export(TENANT, tmp_path / "some.tar", keys=["c/e", "a"])
    assert (tmp_path / "acme.tar").read_bytes() == exporting.archive
    (tmp_path / "unpacked").mkdir()
    untar_here(tmp_path / "acme.tar", tmp_path / "unpacked")
    assert without_manifests(files_below(tmp_path / "unpacked")) == MEMBERS
    assert list(members_of((tmp_path / "some.tar").read_bytes())) == ["c/e", "a"]


# Before the first checkpoint, between others, more than once, and near the end: by more than the relay reads at once.
@pytest.mark.parametrize("cuts", [[1], [2 * MIB], [4 * MIB, 100_000, MIB], [7_100_000]])
@kinds
async def test_broken_connections_leave_no_trace(
    exporting: Exporting, tmp_path: Path, kind: str, cuts: list[int]
) -> None:
    """Wherever they are reset, every destination gets the very bytes of the uninterrupted archive, entries once."""
    entries: list[ExportEntry] = []
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", cut) for cut in cuts])
        async with AsyncClient(relay.address, retry=PATIENT) as client:
            data = await exported(client, TENANT, KINDS[kind](tmp_path), on_entry=entries.append)
        assert not relay.cuts
        assert relay.connections > len(cuts)
    assert data == exporting.archive
    assert {entry.key: entry.member_name for entry in entries} == dict(zip(OBJECTS, MEMBERS, strict=True))
    assert len(entries) == len(OBJECTS)
    assert names(tmp_path) == (["dest"] if kind == "path" else [])


def test_a_real_pipe_gets_every_byte_once(exporting: Exporting) -> None:
    """From the synchronous client."""
    reading, writing = os.pipe()
    taken: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as file:
            taken.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", 4 * MIB), ("got", MIB)])
        with Client(relay.address, retry=PATIENT) as client, os.fdopen(writing, "wb", buffering=0) as pipe:
            client.export(TENANT, pipe)
    reader.join()
    assert taken == [exporting.archive]


@pytest.mark.parametrize("kind", ["path", "pipe"])
def test_a_zip_archive_begins_again(exporting: Exporting, tmp_path: Path, kind: str) -> None:
    """A broken one is begun again, unseen."""
    dest = KINDS[kind](tmp_path)
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", 4 * MIB), ("got", MIB)])
        with Client(relay.address, retry=PATIENT) as client:
            client.export(TENANT, dest, archive_format=ArchiveFormat.ZIP)
        assert not relay.cuts
    with zipfile.ZipFile(io.BytesIO(content_of(dest))) as archive:
        assert without_manifests({name: archive.read(name) for name in archive.namelist()}) == MEMBERS


@pytest.mark.parametrize("kind", ["path", "pipe"])
async def test_objects_change_while_the_connection_is_away(exporting: Exporting, tmp_path: Path, kind: str) -> None:
    """A path holds what stands now after the last checkpoint; a pipe is told that its bytes cannot be continued."""
    tenant = f"changing-{kind}"
    with Client(exporting.server.address) as admin:
        registered(admin, tenant)
    inside_the_last = len(exporting.archive) - 2 * MIB
    changed = False

    def change(position: int) -> None:
        nonlocal changed
        if position > inside_the_last and not changed:
            changed = True
            with Client(exporting.server.address) as admin:
                admin.put(tenant, "c/f", b"newer", mode=WriteMode.OVERWRITE)
            relay.let_go()

    with Relay(exporting.port) as relay:
        relay.holds.append(("got", len(exporting.archive) - MIB // 2))
        async with AsyncClient(relay.address, retry=PATIENT) as client:
            if kind == "path":
                data = await exported(client, tenant, tmp_path / "dest", progress=change)
                assert members_of(data) == MEMBERS | {"c/f": b"newer"}
            else:
                with pytest.raises(AbortedError, match="Objects changed"):
                    await exported(client, tenant, Pipe(), progress=change)
    assert changed


def test_a_damaged_object_is_told_or_ends_the_export(exporting: Exporting, tmp_path: Path) -> None:
    """STOP gives no archive; CONTINUE one without it, and says so in entry, summary and manifest."""
    tenant = "damaged"
    with Client(exporting.server.address) as client:
        registered(client, tenant)
        flip(-200)(exporting.largest(tenant))
        with pytest.raises(KeystowError) as failure:
            client.export(tenant, tmp_path / "dest")
        assert (failure.value.reason, failure.value.metadata["objectKey"]) == ("OBJECT_TAMPERED", "a/b")
        assert names(tmp_path) == []
        entries: list[ExportEntry] = []
        summary = client.export(tenant, tmp_path / "dest", on_error=ErrorPolicy.CONTINUE, on_entry=entries.append)
    assert (summary.complete, summary.object_count, summary.failed_count) == (False, len(OBJECTS) - 1, 1)
    [(key, error)] = [(entry.key, entry.error) for entry in entries if entry.error]
    assert (key, error.reason) == ("a/b", "OBJECT_TAMPERED")
    assert len(entries) == len(OBJECTS)
    expected = {name: data for name, data in MEMBERS.items() if name != "a%/b"}
    assert members_of((tmp_path / "dest").read_bytes()) == expected
