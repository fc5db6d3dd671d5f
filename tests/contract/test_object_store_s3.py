"""The S3 store keeps the object stores' contract, with and without checksums."""

from collections.abc import AsyncIterator

import pytest

from contract.object_store import ObjectStoreContract
from contract.resumable_uploads import ResumableUploadContract
from contract.s3_place import S3Place, s3_place
from servers.moto import MotoServer


@pytest.fixture
async def place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Place]:
    """An empty bucket."""
    async with s3_place(moto, monkeypatch) as made:
        yield made


class TestS3Store(ObjectStoreContract, ResumableUploadContract):
    """All of it."""
