"""Exports from a real server over connections that break: the archive is the one that no interruption had."""

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.conftest import PATIENT
from client.content import names, noise
from client.destinations import KINDS, Pipe, content_of, exported, kinds
from client.relay import Relay
from keystow_client import (
    AbortedError,
    ArchiveFormat,
    AsyncClient,
    Client,
    ErrorPolicy,
    ExportEntry,
    KeyManagement,
    KeystowError,
    WriteMode,
)
from objects.damage import flip
from objects.unpackers import files_below, untar_here
from servers.keystow import KeystowServer, keystow_server

MIB = 1 << 20
TENANT = "acme"
# In List's order, with a folder that is an object too.
OBJECTS = {
    "a": noise(10),
    "a/b": noise(3 * MIB, seed=1),
    "a/c": b"",
    "b": noise(MIB, seed=2),
    "c/d": noise(MIB + 1, seed=3),
    "c/e": noise(2, seed=4),
    "c/f": noise(2 * MIB, seed=5),
}
MEMBERS = {name.replace("a/", "a%/"): data for name, data in OBJECTS.items()}


@dataclass(frozen=True, slots=True)
class Exporting:
    """A server that offers a checkpoint after every few objects, and the uninterrupted archive of TENANT."""

    server: KeystowServer
    data_dir: Path
    archive: bytes

    @property
    def port(self) -> int:
        """Of the server."""
        return int(self.server.address.rpartition(":")[2])


@pytest.fixture(scope="module")
def exporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporting]:
    """With OBJECTS."""
    data_dir = tmp_path_factory.mktemp("exporting")
    settings = {"KEYSTOW_EXPORT_CHECKPOINT_OBJECTS": "3", "KEYSTOW_EXPORT_CHECKPOINT_BYTES": str(2 * MIB)}
    with keystow_server(data_dir, settings=settings) as server, Client(server.address) as client:
        registered(client, TENANT)
        buffer = io.BytesIO()
        summary = client.export(TENANT, buffer)
        assert (summary.object_count, summary.complete) == (len(OBJECTS), True)
        yield Exporting(server, data_dir, buffer.getvalue())


def registered(client: Client, tenant: str) -> None:
    """A tenant with OBJECTS."""
    client.register_tenant(tenant, data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True)
    for key, data in OBJECTS.items():
        client.put(tenant, key, data)


def members_of(archive: bytes) -> dict[str, bytes]:
    """Of a tar archive, without the manifests, by Python's tarfile."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file and not name.startswith(".keystow/")}


def test_an_export_is_what_was_stored(exporting: Exporting, tmp_path: Path) -> None:
    """Python's tarfile and the system's tar find every object."""
    assert members_of(exporting.archive) == MEMBERS
    with Client(exporting.server.address) as client:
        client.export(TENANT, tmp_path / "acme.tar")
        client.export(TENANT, tmp_path / "some.tar", keys=["c/e", "a"])
    assert (tmp_path / "acme.tar").read_bytes() == exporting.archive
    (tmp_path / "unpacked").mkdir()
    untar_here(tmp_path / "acme.tar", tmp_path / "unpacked")
    unpacked = files_below(tmp_path / "unpacked")
    assert {name: data for name, data in unpacked.items() if not name.startswith(".keystow/")} == MEMBERS
    assert list(members_of((tmp_path / "some.tar").read_bytes())) == ["c/e", "a"]


# Before the first checkpoint, between others, and more than once.
@pytest.mark.parametrize("cuts", [[1], [2 * MIB], [4 * MIB, 100_000, MIB], [7 * MIB]])
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
        found = {name: archive.read(name) for name in archive.namelist() if not name.startswith(".keystow/")}
    assert found == MEMBERS


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
        stored = sorted((exporting.data_dir / "stores" / "us" / "objects" / tenant).rglob("*"))
        flip(-200)(next(path for path in stored if path.is_file() and path.stat().st_size > 3 * MIB))
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
