"""Opening S3: the client's configuration, and why it is so."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from keystow_service.adapters.s3.bucket import Bucket
from keystow_service.adapters.s3.http import OnceSession
from keystow_service.adapters.s3.retry import RetryPolicy
from keystow_service.adapters.s3.store import S3Store


@dataclass(frozen=True, slots=True)
class S3Options:
    """Which bucket, and how. Times in seconds."""

    bucket: str
    region: str
    prefix: str = ""  # in front of every name, with its "/"
    endpoint: str | None = None  # of S3-compatible servers; AWS's own are found by region
    checksums: bool = True  # CRC32C of every body, verified by the server
    # After a multipart commit, ask what stands: there are servers whose 200 is not always for this very upload.
    confirm_complete: bool = False
    parts_in_flight: int = 4  # of one upload
    connections: int = 64  # of all calls together
    connect_timeout: float = 5.0
    read_timeout: float = 60.0  # between two reads, not for a whole answer
    retries: RetryPolicy = field(default_factory=RetryPolicy)


@asynccontextmanager
async def open_s3(options: S3Options) -> AsyncIterator[S3Store]:
    """The store in one bucket, with the credentials that botocore finds."""
    async with AioSession().create_client(
        "s3", region_name=options.region, endpoint_url=options.endpoint, config=client_config(options)
    ) as client:
        bucket = Bucket(
            client,
            options.bucket,
            options.prefix,
            options.retries,
            checksums=options.checksums,
            confirm_complete=options.confirm_complete,
        )
        yield S3Store(bucket, options.parts_in_flight)


def client_config(options: S3Options) -> AioConfig:
    """No retries of botocore's own (retry.py), and no pass over the bytes that TLS and our CRC32C make needless."""
    return AioConfig(
        s3={
            "payload_signing_enabled": _in_the_open(options.endpoint),
            "addressing_style": "path" if options.endpoint else "auto",
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=options.connections,
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        http_session_cls=OnceSession,
    )


def _in_the_open(endpoint: str | None) -> bool:
    """Whether requests cross a network without TLS, where only a signature protects their bodies."""
    if endpoint is None or endpoint.startswith("https:"):
        return False
    host = urlsplit(endpoint).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
