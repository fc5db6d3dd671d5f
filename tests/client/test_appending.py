"""Files that are appended to: what is in them stays, each byte comes once, and nothing is written over."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from subprocess import PIPE
from tempfile import SpooledTemporaryFile

import pytest

from client.broken_exports import ARCHIVE, cut, stocked
from client.command import KEYSTOW, Command
from client.content import noise
from client.exporting import TENANT, Exporting
from client.relay import Relay
from client.scripted import MIB, ScriptedServer
from client.test_get_sinks import hostile
from keystow_client import ArchiveFormat, AsyncClient, IntegrityError

__all__ = ["stocked"]

BEFORE = b"what was there before\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with something in it."""
    file = tmp_path / "dest"
    file.write_bytes(BEFORE)
    return file


@contextmanager
def as_shells_do(path: Path) -> Iterator[FileIO]:
    """Open for appending, and at position 0 until the first byte is written."""
    with FileIO(os.open(path, os.O_WRONLY | os.O_APPEND), "w") as file:
        assert file.tell() == 0
        yield file


def content(path: Path) -> bytes:
    """All that is in it."""
    return path.read_bytes()


async def test_a_get_is_appended(client: AsyncClient, path: Path) -> None:
    """As to a pipe."""
    await client.put("acme", "k", noise(MIB + 5))
    with as_shells_do(path) as file:
        await client.get("acme", "k", file)
    with path.open("ab") as file:
        await client.get("acme", "k", file)
    assert content(path) == BEFORE + 2 * noise(MIB + 5)


async def test_a_file_in_memory_stays_there(client: AsyncClient) -> None:
    """A spooled file goes to the disk when it is asked for a descriptor, and so must not be."""
    await client.put("acme", "k", b"content")
    with SpooledTemporaryFile() as file:
        await client.get("acme", "k", file)
        assert file._rolled is False  # type: ignore[attr-defined] # there is no other way to see it
        file.seek(0)
        assert file.read() == b"content"


async def test_what_was_appended_cannot_be_taken_back(client: AsyncClient, server: ScriptedServer, path: Path) -> None:
    """Where a Get would have to begin anew it fails instead, and no byte is there twice."""
    data = noise(MIB + 5)
    await client.put("acme", "k", data)
    server.storage.next("Get", hostile(server.storage.objects["acme", "k"], "second chunk too long"))
    with as_shells_do(path) as file, pytest.raises(IntegrityError):
        await client.get("acme", "k", file)
    assert content(path) == BEFORE + data[:MIB]


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize("archive_format", ArchiveFormat)
async def test_an_export_is_appended(
    client: AsyncClient, server: ScriptedServer, path: Path, archive_format: ArchiveFormat
) -> None:
    """Also one whose stream breaks."""
    uninterrupted = path.with_name("uninterrupted")
    await client.export("acme", uninterrupted, archive_format=archive_format)
    for messages in (4, 7):
        server.storage.next("Export", cut(server, messages))
        with as_shells_do(path) as file:
            await client.export("acme", file, archive_format=archive_format)
    assert content(path) == BEFORE + 2 * content(uninterrupted)


@pytest.mark.usefixtures("stocked")
async def test_an_export_is_not_continued_in_a_file_that_is_appended_to(
    client: AsyncClient, server: ScriptedServer, path: Path
) -> None:
    """It could not be cut to the checkpoint."""
    async with await client.export("acme") as archive:
        async for _ in archive:
            pass
        checkpoint = archive.checkpoint
    (path.parent / "dest").write_bytes(ARCHIVE)
    with FileIO(os.open(path, os.O_RDWR | os.O_APPEND), "r+") as file, pytest.raises(ValueError, match=r"r\+b"):
        await client.export("acme", file, resume_from=checkpoint)
    assert content(path) == ARCHIVE
    assert len(server.storage.requests["Export"]) == 1


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keystow(exporting: Exporting, path: Path) -> Command:
    """The command, for the server with many checkpoints."""
    return Command(exporting.server.address, path.parent)


def redirected(keystow: Command, redirection: str, *arguments: str) -> str:
    """What the command says when a shell has opened its standard output."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", KEYSTOW, *arguments],
        cwd=keystow.directory,
        env=keystow.environment,
        stderr=PIPE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.decode()


def test_the_commands_append(exporting: Exporting, keystow: Command, path: Path) -> None:
    """An archive or an object goes to the end of what >> names."""
    redirected(keystow, ">> dest", "export", TENANT, "-o", "-")
    redirected(keystow, ">> dest", "cat", f"{TENANT}:a")
    redirected(keystow, ">> dest", "get", f"{TENANT}:a", "-")
    assert content(path) == BEFORE + exporting.archive + 2 * noise(10)


def test_a_broken_export_is_appended(exporting: Exporting, keystow: Command, path: Path) -> None:
    """Each byte once."""
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", 4 * MIB), ("got", 2 * MIB)])
        said = redirected(Command(relay.address, keystow.directory), ">> dest", "export", TENANT, "-o", "-")
        assert not relay.cuts
    assert "trying again" in said
    assert content(path) == BEFORE + exporting.archive


def test_standard_output_is_not_cut(exporting: Exporting, keystow: Command, path: Path) -> None:
    """What a shell opened without emptying it is written over, from where it stands, and no shorter afterwards."""
    longer = noise(len(exporting.archive) + 100, seed=9)
    path.write_bytes(longer)
    redirected(keystow, "1<> dest", "export", TENANT, "-o", "-")
    assert content(path) == exporting.archive + longer[-100:]


def test_a_broken_export_to_a_new_file(exporting: Exporting, keystow: Command, path: Path) -> None:
    """What follows the last checkpoint is cut off, but nothing that was there before."""
    with Relay(exporting.port) as relay:
        relay.cuts.extend([("got", 4 * MIB), ("got", 2 * MIB)])
        command = Command(relay.address, keystow.directory)
        redirected(command, "> dest", "export", TENANT, "-o", "-")
        assert not relay.cuts
    assert content(path) == exporting.archive
