"""An Export that one process has begun is gone on with in another, from a checkpoint."""

from pathlib import Path

import google_crc32c
import pytest

from client.broken_exports import ARCHIVE, DAMAGED, cut, stocked
from client.destinations import Pipe
from client.scripted import ScriptedServer
from keystow_client import (
    ArchiveFormat,
    AsyncClient,
    DataLossError,
    ExportCheckpoint,
    ExportEntry,
    IntegrityError,
)

__all__ = ["stocked"]

pytestmark = pytest.mark.usefixtures("stocked")


async def interrupted(client: AsyncClient, server: ScriptedServer, path: Path) -> ExportCheckpoint:
    """A file with the first part of the archive and some more, and its checkpoint."""
    heard: list[ExportCheckpoint] = []

    def on_checkpoint(checkpoint: ExportCheckpoint) -> None:
        assert path.stat().st_size == checkpoint.archive_size
        heard.append(checkpoint)

    server.storage.next("Export", cut(server, 8, DAMAGED))
    with path.open("wb", buffering=0) as file, pytest.raises(DataLossError):
        await client.export("acme", file, on_checkpoint=on_checkpoint)
    return heard[-1]


async def test_another_process_goes_on(client: AsyncClient, server: ScriptedServer, tmp_path: Path) -> None:
    """From the checkpoint, over what came after it; the summary's checksum is the whole archive's."""
    path = tmp_path / "part"
    checkpoint = await interrupted(client, server, path)
    assert len(path.read_bytes()) > checkpoint.archive_size
    entries: list[ExportEntry] = []
    with path.open("r+b") as file:
        summary = await client.export("acme", file, resume_from=checkpoint, on_entry=entries.append)
    assert path.read_bytes() == ARCHIVE
    assert summary.crc32c == google_crc32c.value(ARCHIVE)
    assert [entry.key for entry in entries] == list("cde")
    assert server.storage.requests["Export"][-1].checkpoint_token == checkpoint.checkpoint_token


async def test_the_rest_goes_to_a_pipe_or_an_iterator(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """Where nothing can be compared, exactly the bytes after the checkpoint come."""
    checkpoint = await interrupted(client, server, tmp_path / "part")
    rest = ARCHIVE[checkpoint.archive_size :]
    server.storage.next("Export", cut(server, 2))
    pipe = Pipe()
    await client.export("acme", pipe, resume_from=checkpoint)
    assert pipe.taken == rest
    async with await client.export("acme", resume_from=checkpoint) as archive:
        assert archive.checkpoint == checkpoint
        assert b"".join([piece async for piece in archive]) == rest


async def test_an_iterators_checkpoint_covers_what_was_handed_out(client: AsyncClient, server: ScriptedServer) -> None:
    """At any time the bytes up to it, and what resume_from gives, are the archive."""
    taken = b""
    async with await client.export("acme") as archive:
        async for piece in archive:
            taken += piece
            checkpoint = archive.checkpoint
            assert checkpoint.archive_size <= len(taken)
            async with await client.export("acme", resume_from=checkpoint) as rest:
                assert taken[: checkpoint.archive_size] + b"".join([each async for each in rest]) == ARCHIVE
    assert archive.checkpoint.archive_size > 0


async def test_another_file_is_found_out_before_anything_is_lost(
    client: AsyncClient, server: ScriptedServer, tmp_path: Path
) -> None:
    """A file that is too short, or holds other bytes, or cannot be read, is left as it is."""
    path = tmp_path / "part"
    checkpoint = await interrupted(client, server, path)
    part = path.read_bytes()
    for content in (part[: checkpoint.archive_size - 1], b"?" + part[1:], b""):
        path.write_bytes(content)
        with path.open("r+b") as file, pytest.raises(IntegrityError, match="from the beginning"):
            await client.export("acme", file, resume_from=checkpoint)
        assert path.read_bytes() == content
    with path.open("ab") as file, pytest.raises(ValueError, match=r"r\+b"):
        await client.export("acme", file, resume_from=checkpoint)
    with pytest.raises(ValueError, match="path is new"):
        await client.export("acme", path, resume_from=checkpoint)
    with pytest.raises(ValueError, match="zip"):
        await client.export("acme", Pipe(), archive_format=ArchiveFormat.ZIP, resume_from=checkpoint)
    assert len(server.storage.requests["Export"]) == 1
