"""A customer with a key of their own, in an AWS account of their own, of a service on S3 and KMS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keystow.v1.storage_pb2 import WRITE_MODE_OVERWRITE
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from rpc.exports import Export, export, request
from rpc.wire import Failure, failure, get, put, refused
from servers.in_process import DATA_CENTER, Server, register, serving
from servers.kms.keys import Key, Kind
from servers.kms.principals import PROVIDER, PROVIDER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.kms.service import FaithfulKms
from servers.moto import MotoServer
from servers.on_aws import Bucket, aws_place

TENANT = "acme"
REGION = "us-east-1"
# Renewed at nearly every use, so that a switch is seen at once; but no slow machine ends one.
LEASES = {"lease_refresh": 0.05, "lease_bound": 30}


@dataclass(frozen=True, slots=True)
class Aws:
    """All that stands around a service: KMS, a bucket, and where the service keeps its own data."""

    kms: FaithfulKms
    bucket: Bucket
    data_dir: Path
    settings: dict[str, Any]

    @asynccontextmanager
    async def serving(self, **settings: Any) -> AsyncIterator[Server]:
        """A process of the service; the next one knows only what this one wrote."""
        async with serving(self.data_dir, **{**self.settings, **settings}) as server:
            yield server


@asynccontextmanager
async def aws(moto: MotoServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    """A new bucket, a new KMS with the provider's key in it, and nothing of the service yet."""
    async with faithful_kms(REGION) as kms:
        with aws_place(moto, monkeypatch) as (place, bucket):
            for name, value in PROVIDER.environment.items():
                monkeypatch.setenv(name, value)
            provider_key = kms.create_key("*", account=PROVIDER_ACCOUNT)
            keys = {"provider_key_arn": provider_key.arn, "kms_endpoint": kms.endpoints[REGION]}
            data_centers = {DATA_CENTER: place.model_copy(update=keys)}
            settings = {"deployment_id": "tests", "data_centers": data_centers, **LEASES}
            yield Aws(kms, bucket, data_dir, settings)


@dataclass(frozen=True, slots=True)
class Customer:
    """Uses the service as connector, restore service and export job do, and holds the switch."""

    server: Server
    key: Key
    tenant: str = TENANT

    async def back_up(self, name: str, data: bytes) -> None:
        """A Put; of a name that may be there."""
        await put(self.server, self.tenant, name, data, write_mode=WRITE_MODE_OVERWRITE)

    async def restore(self, name: str) -> bytes:
        """A Get."""
        return (await get(self.server, self.tenant, name)).data

    async def export(self) -> Export:
        """Of everything."""
        return await export(self.server, request(self.tenant))

    async def refusals(self) -> list[Failure]:
        """What backup, restore and export of an object "kept" are told, once leases are over."""
        await refused(lambda: get(self.server, self.tenant, "kept"))
        return [await failure(use) for use in (self.back_up("new", b"new"), self.restore("kept"), self.export())]


async def customer(aws: Aws, server: Server, tenant: str = TENANT, kind: Kind | None = None) -> Customer:
    """Registered, under a key whose policy is as it should be."""
    key = aws.kms.create_key(tenant, kind=kind or Kind())
    await register(server, tenant, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)
    return Customer(server, key, tenant)
