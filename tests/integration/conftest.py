"""The servers that the tests here talk to."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from servers.in_process import Server, server, tenant
from servers.moto import MotoServer, moto
from servers.on_aws import Bucket, serving_on_aws
from servers.postgresql import postgresql

__all__ = ["moto", "postgresql", "server", "tenant"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def on_aws(moto: MotoServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Server, Bucket]]:
    """A server on S3 and KMS."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with serving_on_aws(moto, tmp_path_factory.mktemp("aws"), monkeypatch) as running:
            yield running
