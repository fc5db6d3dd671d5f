"""The S3 store keeps the object stores' contract on a server of one's own, and survives what is peculiar to it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contract.object_store import ObjectStoreContract
from contract.resumable_uploads import ResumableUploadContract
from contract.s3_place import S3Place, s3_place
from contract.store_place import NAME, content, parts, store
from keystow_service.errors import StoreMisconfiguredError, UploadExpiredError, WriteConflictError
from keystow_service.ports import Absent
from servers.versitygw import VersitygwServer


@pytest.fixture
async def place(versitygw: VersitygwServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket, and the store as app.py opens it for a server with an endpoint."""
    async with s3_place(versitygw, monkeypatch, confirm_complete=True) as made:
        yield made


class TestVersitygw(ObjectStoreContract, ResumableUploadContract):
    """All of it."""


@pytest.mark.parametrize("rival", ["an object", "nothing"])
async def test_complete_of_an_upload_that_is_gone(place: S3Place, rival: str) -> None:
    """An upload that was discarded while its commit was under way is never told as stored, whatever stands there.

    The server itself answers 200 where any object stands.
    """
    upload = await place.store.begin_resumable(NAME, Absent(), lambda *_: None)
    first, last = parts(place, content(place.part_size + 5000, 1))
    await upload.write(first)
    gate = place.proxy.hold("CompleteMultipartUpload")
    committing = asyncio.create_task(upload.commit(last))
    await gate.until(1)
    await place.store.discard(NAME, upload.id)
    if rival == "an object":
        place.plant(NAME, b"other")
    gate.open()
    with pytest.raises(WriteConflictError if rival == "an object" else UploadExpiredError):
        await committing
    assert place.contents() == ({NAME: b"other"} if rival == "an object" else {})


async def test_name_too_long_for_its_file_system(place: S3Place) -> None:
    """A segment of 256 bytes is refused as unfit, in words; one of 255 is stored."""
    longest = place.profile.longest_segment
    assert longest is not None
    await store(place, "objects/acme/_" + "l" * (longest - 2) + "!", b"x")
    with pytest.raises(StoreMisconfiguredError):
        await store(place, "objects/acme/_" + "l" * (longest - 1) + "!", b"x")
