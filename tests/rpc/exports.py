"""Exports through a channel: the whole stream, held to its contract, and the archive opened by Python's own readers."""

import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from keystow.v1.storage_pb2 import (
    ARCHIVE_FORMAT_TAR,
    ERROR_POLICY_STOP,
    ExportCheckpoint,
    ExportEntry,
    ExportRequest,
    ExportResponse,
    ExportSummary,
    ObjectKeys,
)
from rpc.wire import MIB, TIMEOUT
from servers.in_process import Server

MANIFESTS = ".keystow/"


@dataclass(slots=True)
class Export:
    """What a stream has given so far. ``start`` is where in the archive it began."""

    start: int = 0
    data: bytearray = field(default_factory=bytearray)
    entries: list[ExportEntry] = field(default_factory=list)
    checkpoints: list[ExportCheckpoint] = field(default_factory=list)
    summary: ExportSummary | None = None

    def take(self, response: ExportResponse) -> None:
        """The next message, as the contract has it."""
        assert self.summary is None
        size = self.start + len(self.data)
        match response.WhichOneof("message"):
            case "chunk":
                chunk = response.chunk
                assert chunk.offset == size
                assert len(chunk.data) <= MIB
                assert chunk.crc32c == google_crc32c.value(chunk.data)
                self.data += chunk.data
            case "entry":
                self.entries.append(response.entry)
            case "checkpoint":
                assert response.checkpoint.archive_size == size
                self.checkpoints.append(response.checkpoint)
            case "summary":
                self.summary = response.summary
                assert self.summary.archive_size == size
                assert self.summary.crc32c == google_crc32c.value(bytes(self.data))
                assert self.summary.complete == (self.summary.failed_count == 0)
            case other:
                raise AssertionError(other)


def request(tenant_id: str, *keys: str, **fields: Any) -> ExportRequest:
    """Of these keys, or of all with ``prefix``, which is empty by default."""
    chosen: dict[str, Any] = {"keys": ObjectKeys(keys=keys)} if keys else {"prefix": ""}
    defaults = {"format": ARCHIVE_FORMAT_TAR, "on_error": ERROR_POLICY_STOP}
    return ExportRequest(tenant_id=tenant_id, **{**chosen, **defaults, **fields})


def stream(server: Server, message: ExportRequest) -> AsyncIterator[ExportResponse]:
    """The responses, one by one."""
    return aiter(server.storage.Export(message, timeout=TIMEOUT))


async def export(server: Server, message: ExportRequest, *, start: int = 0, into: Export | None = None) -> Export:
    """All of it, up to the summary. ``into`` keeps what came before a failure."""
    taken = into if into is not None else Export(start)
    async for response in stream(server, message):
        taken.take(response)
    assert taken.summary is not None
    return taken


async def drained(responses: AsyncIterator[ExportResponse], into: Export) -> None:
    """The rest of an export that must fail on the way."""
    async for response in responses:
        into.take(response)
        assert into.summary is None


def untar(archive: bytes) -> Mapping[str, bytes]:
    """Every member's content by its name; nothing but regular files, no name twice."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        assert all(member.isreg() for member in members)
        assert len({member.name for member in members}) == len(members)
        return {member.name: _content(tar, member) for member in members}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def unzip(archive: bytes) -> Mapping[str, bytes]:
    """Every member's content by its name, checked against its CRC-32."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert len(set(opened.namelist())) == len(opened.namelist())
        return {name: opened.read(name) for name in opened.namelist()}


def objects_of(members: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Without the manifests."""
    return {name: data for name, data in members.items() if not name.startswith(MANIFESTS)}


def manifests_of(members: Mapping[str, bytes]) -> list[list[dict[str, Any]]]:
    """The lines of each manifest, in the order of their numbers, which count from 1."""
    names = [name for name in members if name.startswith(MANIFESTS)]
    assert names == [f"{MANIFESTS}MANIFEST-{number:05}.jsonl" for number in range(1, len(names) + 1)]
    return [[json.loads(line) for line in members[name].splitlines()] for name in names]
