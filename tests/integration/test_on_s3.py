"""The whole service on S3 and KMS, through a real channel, with boto3 as the independent view of the bucket."""

import uuid

import grpc
import pytest
import pytest_asyncio

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import (
    WRITE_MODE_OVERWRITE,
    DeleteRequest,
    GetRequest,
    ListRequest,
    PutRequest,
    PutResponse,
    StatRequest,
)
from keystow.v1.tenants_pb2 import GetTenantRequest
from rpc.wire import MIB, TIMEOUT, body, content, failure, get, header, pieces_of, put, received, until
from servers.in_process import Server, connected, register
from servers.on_aws import Bucket

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARTS = content(17 * MIB)  # more than two parts
KEYS = ["a", "a/b", "a/../b", "..", "nul\0", "Österreich/ß", "%", "a" * 900]


@pytest_asyncio.fixture(loop_scope="session")
async def place(on_aws: tuple[Server, Bucket]) -> tuple[Server, Bucket, str]:
    """The server, the bucket, and a new tenant there."""
    server, bucket = on_aws
    tenant = await register(server, f"t-{uuid.uuid4()}")
    return server, bucket, tenant


Place = tuple[Server, Bucket, str]


def of(bucket: Bucket, tenant: str) -> list[str]:
    """The names of a tenant's objects in the bucket."""
    return [name for name in bucket.sizes() if name.startswith(f"objects/{tenant}/")]


async def test_the_life_of_an_object(place: Place) -> None:
    """Put, Stat, Get, a range, List, overwrite, Delete: each as on the local store."""
    server, bucket, tenant = place
    first = await put(server, tenant, "a/b", PARTS, content_type="text/plain", metadata={"a": "b"})
    read = await get(server, tenant, "a/b")
    assert (read.data, read.object) == (PARTS, first)
    assert (await server.storage.Stat(StatRequest(tenant_id=tenant, key="a/b"))).object == first
    assert (await get(server, tenant, "a/b", offset=-5 * MIB, length=2 * MIB)).data == PARTS[12 * MIB : 14 * MIB]
    told = await failure(put(server, tenant, "a/b", b"taken"))
    assert told.reason == "OBJECT_EXISTS"
    second = await put(server, tenant, "a/b", b"second", write_mode=WRITE_MODE_OVERWRITE)
    told = await failure(get(server, tenant, "a/b", version_id=first.version_id))
    assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "OBJECT_CHANGED")
    [listed] = (await server.storage.List(ListRequest(tenant_id=tenant))).objects
    assert (listed.key, listed.version_id, listed.size) == ("a/b", second.version_id, 6)
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="a/b", if_version_id=second.version_id))
    assert of(bucket, tenant) == []
    assert bucket.unfinished() == []


async def test_the_key_is_in_kms(place: Place) -> None:
    """The tenant is shown the provider's key, and the bucket holds nothing in clear."""
    server, bucket, tenant = place
    answer = await server.tenants.GetTenant(GetTenantRequest(tenant_id=tenant))
    assert answer.tenant.kms_key_arn.startswith("arn:aws:kms:us-east-1:")
    await put(server, tenant, "key", b"canary" * 1000, content_type="canary", metadata={"canary": "canary"})
    [name] = of(bucket, tenant)
    assert b"canary" not in bucket.read(name)


async def test_a_repeated_put(place: Place) -> None:
    """One upload id, one object, one answer, with parts and without."""
    server, bucket, tenant = place
    for key, data in (("small", b"x" * 1000), ("large", PARTS)):
        fields = {"upload_id": header(tenant, key).header.upload_id}
        first = await put(server, tenant, key, data, **fields)
        assert await put(server, tenant, key, data, **fields) == first
    assert len(of(bucket, tenant)) == 2
    assert bucket.unfinished() == []


async def test_any_text_is_a_key(place: Place) -> None:
    """Keys that S3 or its clients would take for something else come back from List as they are."""
    server, bucket, tenant = place
    for key in KEYS:
        await put(server, tenant, key, key.encode())
    for key in KEYS:
        assert (await get(server, tenant, key)).data == key.encode()
    listed = await server.storage.List(ListRequest(tenant_id=tenant))
    assert {each.key for each in listed.objects} == set(KEYS)
    assert len(of(bucket, tenant)) == len(KEYS)


async def test_pages(place: Place) -> None:
    """The pages join to the whole, past what else lies in the bucket."""
    server, bucket, tenant = place
    keys = [f"key-{number:02}" for number in range(12)]
    for key in keys:
        await put(server, tenant, key, key.encode())
    bucket.write(f"objects/{tenant}/foreign", b"foreign")
    found, token = [], ""
    while True:
        page = await server.storage.List(ListRequest(tenant_id=tenant, page_size=5, page_token=token))
        found += [each.key for each in page.objects]
        token = page.next_page_token
        if not token:
            break
    assert found == keys


async def test_a_client_that_vanishes(place: Place) -> None:
    """In the middle of a Put in parts: no object, and no upload that costs its owner money for ever."""
    server, bucket, tenant = place
    async with connected(server.address) as channel:
        call: grpc.aio.StreamStreamCall[PutRequest, PutResponse] = storage_pb2_grpc.StorageServiceStub(channel).Put()
        await call.write(header(tenant, "key"))
        for message in list(body(pieces_of(PARTS)))[:-1]:
            await call.write(message)
        await until(lambda: bucket.unfinished() != [])
    await until(lambda: bucket.unfinished() == [])
    assert of(bucket, tenant) == []


async def test_tampering_in_the_bucket(place: Place) -> None:
    """A flipped bit, a cut, and another object's bytes are DATA_LOSS by name, and no bad byte leaves."""
    server, bucket, tenant = place
    await put(server, tenant, "one", PARTS)
    await put(server, tenant, "two", PARTS)
    one, two = sorted(of(bucket, tenant))
    stored = bucket.read(one)
    flipped = bytearray(stored)
    flipped[9 * MIB] ^= 1
    for damaged, reason in (
        (bytes(flipped), "OBJECT_TAMPERED"),
        (stored[:-1], "OBJECT_TRUNCATED"),
        (stored[:5000], "OBJECT_TAMPERED"),
        (stored[:100], "OBJECT_TRUNCATED"),
        (b"", "OBJECT_TRUNCATED"),
        (bucket.read(two), "OBJECT_TAMPERED"),
    ):
        bucket.write(one, damaged)
        plaintext = bytearray()
        stream = server.storage.Get(GetRequest(tenant_id=tenant, key="one"), timeout=TIMEOUT)
        told = await failure(received(aiter(stream), plaintext))
        assert (told.code, told.reason) == (grpc.StatusCode.DATA_LOSS, reason)
        assert PARTS.startswith(plaintext)
        assert len(plaintext) <= 9 * MIB
    bucket.write(one, stored)
    assert (await get(server, tenant, "one")).data == PARTS


async def test_an_archived_object_stands(place: Place) -> None:
    """It cannot be read until it is restored, is there for whoever would create it, and may be replaced."""
    server, bucket, tenant = place
    await put(server, tenant, "key", b"old")
    [name] = of(bucket, tenant)
    bucket.archive(name)
    assert (await failure(get(server, tenant, "key"))).reason == "OBJECT_ARCHIVED"
    assert (await failure(put(server, tenant, "key", b"new"))).reason == "OBJECT_EXISTS"
    await put(server, tenant, "key", b"new", write_mode=WRITE_MODE_OVERWRITE)
    assert (await get(server, tenant, "key")).data == b"new"
