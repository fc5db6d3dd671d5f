"""Where objects are and whose keys they are under are two choices; and replicas that share both, and their tenants."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped] # boto3 ships no stubs
import grpc
import pytest
import pytest_asyncio

from keystow.v1.tenants_pb2 import GetTenantRequest
from keystow_service.app import StartError
from keystow_service.settings import DataCenterSettings
from rpc.wire import content, failure, get, put
from servers.in_process import DATA_CENTER, register, serving
from servers.moto import MotoServer
from servers.postgresql import PostgresqlServer, new_database

pytestmark = pytest.mark.asyncio(loop_scope="session")

_REGION = "us-east-1"


@pytest_asyncio.fixture(loop_scope="session")
async def bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DataCenterSettings]:
    """A data centre whose objects are in a bucket that is not AWS's, under keys of the local keyring."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_access_key)
    name = f"keystow-{uuid.uuid4().hex}"
    with closing(boto3.client("s3", endpoint_url=moto.endpoint, region_name=_REGION)) as s3:
        s3.create_bucket(Bucket=name)
    yield DataCenterSettings(region=_REGION, bucket=name, s3_endpoint=moto.endpoint)


async def test_a_bucket_and_the_local_keyring(bucket: DataCenterSettings, tmp_path: Path) -> None:
    """Nothing but keys and tenants is on the machine's disk; after a restart all is read again."""
    data = content(100_000)
    async with serving(tmp_path, deployment_id="test", data_centers={DATA_CENTER: bucket}) as server:
        tenant = await register(server, "acme")
        await put(server, tenant, "key", data)
        answer = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant))
        assert answer.tenant.kms_key_arn.startswith(f"arn:aws:kms:{_REGION}:000000000000:")
    assert not (tmp_path / "stores").exists()
    async with serving(tmp_path, deployment_id="test", data_centers={DATA_CENTER: bucket}) as server:
        assert (await get(server, tenant, "key")).data == data


async def test_a_lost_keyring_of_a_bucket(bucket: DataCenterSettings, tmp_path: Path) -> None:
    """Objects in the bucket are enough to refuse a new keyring, and what is not keystow's is not."""
    settings: dict[str, Any] = {"deployment_id": "test", "data_centers": {DATA_CENTER: bucket}}
    with closing(boto3.client("s3", endpoint_url=bucket.s3_endpoint, region_name=_REGION)) as s3:
        s3.put_object(Bucket=bucket.bucket, Key="foreign", Body=b"")
    async with serving(tmp_path / "first", **settings) as server:
        tenant = await register(server, "acme")
        await put(server, tenant, "key", b"data")
    with pytest.raises(StartError, match=r"keyring.json is missing, but there are objects"):
        async with serving(tmp_path / "second", **settings):
            pass


async def test_this_machine_and_kms(moto: MotoServer, bucket: DataCenterSettings, tmp_path: Path) -> None:
    """Objects on the disk, keys in KMS: no keyring is made."""
    with closing(boto3.client("kms", endpoint_url=moto.endpoint, region_name=_REGION)) as kms:
        arn = kms.create_key()["KeyMetadata"]["Arn"]
    place = DataCenterSettings(region=_REGION, provider_key_arn=arn, kms_endpoint=moto.endpoint)
    data = content(100_000)
    async with serving(tmp_path, deployment_id="test", data_centers={DATA_CENTER: place}) as server:
        tenant = await register(server, "acme")
        await put(server, tenant, "key", data)
        assert len(server.stored(tenant)) == 1
        assert (await get(server, tenant, "key")).data == data
        answer = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant))
        assert answer.tenant.kms_key_arn == arn
    assert not (tmp_path / "keyring").exists()


async def test_replicas(postgresql: PostgresqlServer, bucket: DataCenterSettings, tmp_path: Path) -> None:
    """Two replicas with one bucket, one keyring and one PostgreSQL: a tenant is registered once, and served by both."""
    data = content(100_000)
    async with new_database(postgresql) as name:
        settings: dict[str, Any] = {
            "deployment_id": "test",
            "registry_url": postgresql.url(name),
            "data_centers": {DATA_CENTER: bucket},
        }
        async with serving(tmp_path, **settings) as one, serving(tmp_path, **settings) as other:
            rivals = (register(each, "acme", display_name=f"From {each.address}") for each in (one, other))
            results = await asyncio.gather(*rivals, return_exceptions=True)
            (lost,) = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
            assert lost.code() == grpc.StatusCode.ALREADY_EXISTS
            assert "acme" in results
            names = {
                (await each.tenants.GetTenant(GetTenantRequest(tenant_id="acme"))).tenant.display_name
                for each in (one, other)
            }
            assert len(names) == 1
            await put(one, "acme", "key", data)
            assert (await get(other, "acme", "key")).data == data
            assert (await failure(put(other, "acme", "key", b"taken"))).reason == "OBJECT_EXISTS"


async def test_registry_down(postgresql: PostgresqlServer, bucket: DataCenterSettings, tmp_path: Path) -> None:
    """A call that needs a tenant ends with UNAVAILABLE / REGISTRY_UNAVAILABLE, and works when PostgreSQL is back."""
    async with new_database(postgresql) as name:
        url = postgresql.url(name)
        places = {DATA_CENTER: bucket}
        async with serving(tmp_path, deployment_id="test", registry_url=url, data_centers=places) as server:
            postgresql.stop()
            try:
                told = await failure(put(server, "acme", "key", b"data"))
                assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "REGISTRY_UNAVAILABLE")
            finally:
                await asyncio.to_thread(postgresql.start)
            tenant = await register(server, "acme")
            await put(server, tenant, "key", b"data")
