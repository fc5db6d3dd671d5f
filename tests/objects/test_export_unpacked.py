"""Exports unpacked by the programs that people have: tar, unzip, Python, Java."""

import asyncio
import tarfile
import zipfile
from pathlib import Path

import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import ARCHIVE_FORMAT_TAR, ARCHIVE_FORMAT_ZIP, ArchiveFormat
from objects.unpackers import files_below, read_in_java, tar_names, untar_here, unzip_here
from rpc.exports import Export, export, objects_of, request
from rpc.wire import MIB, content, put
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Names that are awkward to unpack, by key; each holds its own key, but for the large one.
MEMBERS = {
    "a": "a",
    "a/b": "a%/b",
    "docs/a.txt": "docs/a.txt",
    "docs/Ärzte 日本.txt": "docs/Ärzte 日本.txt",
    "../escape": ".%2E/escape",
    "/etc/passwd": "%/etc/passwd",
    "back\\slash": "back%5Cslash",
    "line\nfeed": "line%0Afeed",
    "trailing/": "trailing/%",
    ".keystow/MANIFEST-00001.jsonl": "%2Ekeystow/MANIFEST-00001.jsonl",
    "long/" + "x" * 500: f"long/{'x' * 240}%-/{'x' * 240}%-/{'x' * 20}",
    "deep/" * 80 + "file": "deep/" * 80 + "file",
    "-rf": "-rf",
    "large": "large",
}
LARGE = content(3 * MIB + 5)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def awkward(server: Server) -> str:
    """A tenant with all of them."""
    tenant = await register(server, "awkward")
    for key in MEMBERS:
        await put(server, tenant, key, LARGE if key == "large" else key.encode())
    return tenant


def expected() -> dict[str, bytes]:
    """What must be unpacked."""
    return {name: LARGE if key == "large" else key.encode() for key, name in MEMBERS.items()}


async def exported_to(path: Path, server: Server, tenant: str, archive_format: ArchiveFormat.ValueType) -> Export:
    """An export, in a file."""
    exported = await export(server, request(tenant, format=archive_format))
    await asyncio.to_thread(path.write_bytes, exported.data)
    return exported


async def test_system_tar(server: Server, awkward: str, tmp_path: Path) -> None:
    """Without a warning, every object is where its entry says, and nothing is beside the folder."""
    archive, folder = tmp_path / "export.tar", tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    exported = await exported_to(archive, server, awkward, ARCHIVE_FORMAT_TAR)
    assert {entry.object.key: entry.member_name for entry in exported.entries} == MEMBERS
    assert set(tar_names(archive)) == {*MEMBERS.values(), ".keystow/MANIFEST-00001.jsonl"}
    untar_here(archive, folder)
    assert objects_of(files_below(folder)) == expected()
    assert len(files_below(tmp_path / "in")) == len(MEMBERS) + 1


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python is older than tarfile's filters")
async def test_python_tarfile(server: Server, awkward: str, tmp_path: Path) -> None:
    """Its strictest filter has nothing to object to."""
    archive, folder = tmp_path / "export.tar", tmp_path / "folder"
    await exported_to(archive, server, awkward, ARCHIVE_FORMAT_TAR)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    assert objects_of(files_below(folder)) == expected()


async def test_unzip(server: Server, awkward: str, tmp_path: Path) -> None:
    """Info-ZIP's, without a warning."""
    archive, folder = tmp_path / "export.zip", tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    await exported_to(archive, server, awkward, ARCHIVE_FORMAT_ZIP)
    unzip_here(archive, folder)
    assert objects_of(files_below(folder)) == expected()
    assert len(files_below(tmp_path / "in")) == len(MEMBERS) + 1


async def test_python_zipfile(server: Server, awkward: str, tmp_path: Path) -> None:
    """It changes no name, and finds every checksum right."""
    archive, folder = tmp_path / "export.zip", tmp_path / "folder"
    await exported_to(archive, server, awkward, ARCHIVE_FORMAT_ZIP)
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        opened.extractall(folder)  # noqa: S202 - a rule about tarfile
    assert objects_of(files_below(folder)) == expected()


async def test_java_zip_input_stream(server: Server, awkward: str, tmp_path: Path) -> None:
    """It reads the archive as a stream, without the central directory, and checks each CRC-32 and size."""
    archive = tmp_path / "export.zip"
    exported = await exported_to(archive, server, awkward, ARCHIVE_FORMAT_ZIP)
    *entries, manifest = read_in_java(archive)
    assert manifest.name == ".keystow/MANIFEST-00001.jsonl"
    assert [(entry.name, entry.size, entry.modified) for entry in entries] == [
        (entry.member_name, entry.object.size, entry.object.create_time.seconds) for entry in exported.entries
    ]
