"""Sessions of the AWS clients, kept: reading botocore's models takes longer than a test."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from servers.kms.principals import PROVIDER, Principal
from servers.kms.service import FaithfulKms

if TYPE_CHECKING:
    from types_aiobotocore_kms import KMSClient  # a development dependency


@functools.cache
def session_of(principal: Principal = PROVIDER) -> AioSession:
    """With this principal's credentials."""
    session = AioSession()
    session.set_credentials(principal.access_key_id, principal.secret_access_key, principal.session_token)
    return session


@asynccontextmanager
async def client_of(kms: FaithfulKms, principal: Principal, region: str = "us-east-1") -> AsyncIterator["KMSClient"]:
    """A client of one region's endpoint, without retries."""
    config = AioConfig(retries={"total_max_attempts": 1})
    session = session_of(principal)
    async with session.create_client(
        "kms", region_name=region, endpoint_url=kms.endpoints[region], config=config
    ) as client:
        yield client
