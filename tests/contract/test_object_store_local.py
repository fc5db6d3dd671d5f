"""The local store keeps the object stores' contract."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.local_place import LocalPlace, local_place
from contract.object_store import ObjectStoreContract
from contract.resumable_uploads import ResumableUploadContract
from contract.store_place import NAME
from keystow_service.ports import Absent
from servers.gate import Gate


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[LocalPlace]:
    """An empty store."""
    async with local_place(tmp_path / "store") as made:
        yield made


class TestLocalStore(ObjectStoreContract, ResumableUploadContract):
    """All of it."""


async def test_cancelled_while_the_file_is_opened(place: LocalPlace) -> None:
    """A writer that is cancelled while a thread opens its file leaves nothing: the abort waits for that thread."""
    gate = place.hold_beginning()
    upload = place.store.begin(NAME, Absent())
    writing = asyncio.create_task(upload.write(bytearray(1)))
    await gate.until(1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    aborting = asyncio.create_task(upload.abort())
    for _ in range(10):
        await place.store.list("", limit=1)  # whatever could go on now, does
    assert not aborting.done()
    gate.open()
    await aborting
    assert place.unfinished() == []


async def test_abort_waits_for_threads_that_write(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not closed under a thread that writes to it: its number might be another file's by then."""
    gate, loop, pwrite = Gate(), asyncio.get_running_loop(), os.pwrite

    def held_pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", held_pwrite)
    upload = place.store.begin(NAME, Absent())
    await upload.write(bytearray(1))
    await gate.until(1)
    aborting = asyncio.create_task(upload.abort())
    for _ in range(10):
        await place.store.list("", limit=1)  # whatever could go on now, does
    unfinished = place.unfinished()
    gate.open()
    await aborting
    assert len(unfinished) == 1
    assert place.unfinished() == []
