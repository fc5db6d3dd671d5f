"""A keystow server in the test's event loop whose data centre is on moto's S3 and KMS, and boto3's view of it."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped] # boto3 ships no stubs
import pytest

from keystow_service.settings import DataCenterSettings
from servers.in_process import DATA_CENTER, Server, serving
from servers.moto import MotoServer

_REGION = "us-east-1"
PREFIX = "keystow/"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket, by boto3."""

    client: Any
    name: str

    def sizes(self) -> Mapping[str, int]:
        """Every object's stored bytes, by its name below the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}
        assert all(key.startswith(PREFIX) for key in found)
        return {key.removeprefix(PREFIX): size for key, size in found.items()}

    def read(self, name: str) -> bytes:
        """An object's stored bytes."""
        stored: bytes = self.client.get_object(Bucket=self.name, Key=PREFIX + name)["Body"].read()
        return stored

    def write(self, name: str, stored: bytes) -> None:
        """Put other bytes in an object's place."""
        self.client.put_object(Bucket=self.name, Key=PREFIX + name, Body=stored)

    def archive(self, name: str) -> None:
        """Move an object to Glacier, as a lifecycle rule does."""
        source = {"Bucket": self.name, "Key": PREFIX + name}
        self.client.copy_object(Bucket=self.name, Key=PREFIX + name, CopySource=source, StorageClass="GLACIER")

    def completed(self, upload_id: str) -> bytes:
        """What the parts of an unfinished upload are together: the only way to see them is to complete it."""
        place = self._place(upload_id)
        parts = [{key: part[key] for key in ("PartNumber", "ETag")} for part in self.parts(upload_id)]
        self.client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        return self.read(place["Key"].removeprefix(PREFIX))

    def parts(self, upload_id: str) -> Sequence[Mapping[str, Any]]:
        """Those of an unfinished upload that have arrived."""
        parts: Sequence[Mapping[str, Any]] = self.client.list_parts(**self._place(upload_id)).get("Parts", [])
        return parts

    def _place(self, upload_id: str) -> dict[str, str]:
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        [name] = [upload["Key"] for upload in listed["Uploads"] if upload["UploadId"] == upload_id]
        return {"Bucket": self.name, "Key": name, "UploadId": upload_id}

    def unfinished(self) -> Sequence[str]:
        """Multipart uploads under way."""
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["UploadId"] for upload in listed.get("Uploads", [])]


@contextmanager
def aws_place(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[DataCenterSettings, Bucket]]:
    """A new bucket and a new provider key, and the data centre that they are."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_access_key)
    name = f"keystow-{uuid.uuid4().hex}"
    with (
        closing(boto3.client("s3", endpoint_url=moto.endpoint, region_name=_REGION)) as s3,
        closing(boto3.client("kms", endpoint_url=moto.endpoint, region_name=_REGION)) as kms,
    ):
        s3.create_bucket(Bucket=name)
        place = DataCenterSettings(
            region=_REGION,
            bucket=name,
            prefix=PREFIX,
            provider_key_arn=kms.create_key()["KeyMetadata"]["Arn"],
            s3_endpoint=moto.endpoint,
            kms_endpoint=moto.endpoint,
        )
        yield place, Bucket(s3, name)


@asynccontextmanager
async def serving_on_aws(
    moto: MotoServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Server, Bucket]]:
    """A server over a new bucket and a new provider key."""
    with aws_place(moto, monkeypatch) as (place, bucket):
        async with serving(data_dir, deployment_id="tests", data_centers={DATA_CENTER: place}) as server:
            yield server, bucket
