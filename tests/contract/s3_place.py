"""An S3 bucket on a real server behind the fault-making proxy, seen through boto3 without the proxy."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from datetime import datetime
from typing import Any

import boto3  # type: ignore[import-untyped] # boto3 ships no stubs
import pytest

from contract.store_place import StoreProfile
from keystow_service.adapters.s3 import RetryPolicy, S3Options, open_s3
from keystow_service.ports import ObjectStore
from servers.beginnings import Beginnings
from servers.gate import Gate
from servers.moto import MotoServer
from servers.s3_proxy import S3Proxy, s3_proxy
from servers.versitygw import VersitygwServer

PREFIX = "backups/"
_PARTS_IN_FLIGHT = 3
# moto 5.2.5 holds to If-Match and If-None-Match everywhere else that the store sends them.
_MOTO = StoreProfile(complete_if_match=False, gone_upload=False, atomic=False)
# A name is a path of its file system.
_VERSITYGW = StoreProfile(longest_segment=255)
_AT_ONCE = 64
# So short that no test waits for it, so long that no test runs out of it.
_QUICK = RetryPolicy(attempts=4, first_delay=0.001, longest_delay=0.002, total=60.0)


class S3Place:
    """See the module."""

    part_size = 5 * 1024 * 1024  # the least that S3 takes for a part that is not the last
    parts_in_flight = _PARTS_IN_FLIGHT

    def __init__(self, store: ObjectStore, profile: StoreProfile, proxy: S3Proxy, s3: Any, options: S3Options) -> None:
        """``s3`` is a boto3 client."""
        self.store: ObjectStore = store
        self.profile = profile
        self.proxy = proxy
        self.s3 = s3
        self.options = options
        self.bucket = options.bucket
        self._beginnings = Beginnings(proxy)

    def contents(self) -> dict[str, bytes]:
        """Every object in the bucket, whose names all begin with the prefix."""
        listed = self.s3.list_objects_v2(Bucket=self.bucket)
        keys = [entry["Key"] for entry in listed.get("Contents", [])]
        assert all(key.startswith(PREFIX) for key in keys)
        return {
            key.removeprefix(PREFIX): self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys
        }

    def unfinished(self) -> Sequence[str]:
        """Multipart uploads."""
        listed = self.s3.list_multipart_uploads(Bucket=self.bucket)
        return [upload["UploadId"] for upload in listed.get("Uploads", [])]

    def plant(self, name: str, data: bytes) -> None:
        """Put by boto3."""
        self.s3.put_object(Bucket=self.bucket, Key=PREFIX + name, Body=data)

    def hold_parts(self) -> Gate:
        """At the proxy."""
        return self.proxy.hold("UploadPart")

    def hold_beginning(self) -> Gate:
        """At the proxy."""
        return self.proxy.hold("CreateMultipartUpload")

    async def settled(self) -> None:
        """At the proxy."""
        await self.proxy.idle()

    def another(self) -> AbstractAsyncContextManager[ObjectStore]:
        """With connections of its own."""
        return open_s3(self.options)

    def backdate(self, upload_id: str, begun: datetime) -> None:
        """On the way from moto."""
        self._beginnings.backdate(upload_id, begun)


@asynccontextmanager
async def s3_place(
    server: MotoServer | VersitygwServer, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> AsyncIterator[S3Place]:
    """A new bucket; ``changes`` are to the store's S3Options."""
    profile = _MOTO if isinstance(server, MotoServer) else _VERSITYGW
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
    bucket = f"keystow-{uuid.uuid4().hex}"
    with closing(boto3.client("s3", endpoint_url=server.endpoint, region_name=server.region)) as s3:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": server.region})
        async with s3_proxy(server.endpoint, at_once=_AT_ONCE if profile.atomic else 1) as proxy:
            options = S3Options(
                bucket=bucket,
                region=server.region,
                prefix=PREFIX,
                endpoint=proxy.endpoint,
                parts_in_flight=_PARTS_IN_FLIGHT,
                retries=_QUICK,
            )
            options = replace(options, **changes)
            async with open_s3(options) as store:
                yield S3Place(store, profile, proxy, s3, options)
