"""What an Export is written to, of each kind, and what is in it then."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from keystow_client import AsyncClient


class Pipe:
    """A file object that cannot seek."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes | memoryview) -> int:
        self.taken += data
        return len(data)


# By a name for each, from a directory of the test's own; None is an iterator.
KINDS: dict[str, Callable[[Path], Any]] = {
    "iterator": lambda _: None,
    "path": lambda folder: folder / "dest",
    "file": lambda _: io.BytesIO(),
    "pipe": lambda _: Pipe(),
}
kinds = pytest.mark.parametrize("kind", KINDS)


async def exported(client: AsyncClient, tenant: str, dest: Any, **options: Any) -> bytes:
    """Export, and read the archive where it is."""
    if dest is None:
        async with await client.export(tenant, **options) as archive:
            data = b"".join([piece async for piece in archive])
        summary = archive.summary
    else:
        summary = await client.export(tenant, dest, **options)
        data = content_of(dest)
    assert summary
    assert (summary.archive_size, summary.crc32c) == (len(data), google_crc32c.value(data))
    return data


def content_of(dest: Path | io.BytesIO | Pipe) -> bytes:
    """All bytes."""
    match dest:
        case Path():
            return dest.read_bytes()
        case io.BytesIO():
            return dest.getvalue()
        case Pipe():
            return dest.taken
