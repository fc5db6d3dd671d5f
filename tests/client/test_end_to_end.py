"""The client against the real server, over local storage."""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from client.conftest import PATIENT
from client.content import names, noise
from client.relay import Relay
from keystow_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    FailedPreconditionError,
    InvalidRequestError,
    KeyManagement,
    KeystowError,
    NotFoundError,
    Registration,
    UploadProgress,
    WriteMode,
    is_object_not_found,
)
from servers.keystow import KeystowServer

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7, 20 * MIB + 1])
async def test_an_object_makes_the_round_trip(
    real_server: KeystowServer, tenant: str, tmp_path: Path, size: int
) -> None:
    """Stored from a path, described, fetched whole and in part, deleted."""
    data = noise(size)
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.write_bytes(data)
    async with AsyncClient(real_server.address) as client:
        put = await client.put(tenant, "k", source, content_type="a/b", metadata={"x": "y"})
        assert (put.size, put.content_type, put.metadata) == (size, "a/b", {"x": "y"})
        assert await client.stat(tenant, "k") == put
        assert await client.get(tenant, "k", dest) == put
        assert dest.read_bytes() == data
        async with await client.get(tenant, "k", offset=-5, length=3) as download:
            assert b"".join([chunk async for chunk in download]) == data[-5:][:3]
        await client.delete(tenant, "k", if_version_id=put.version_id)
        with pytest.raises(NotFoundError) as failure:
            await client.stat(tenant, "k")
    assert is_object_not_found(failure.value)
    assert failure.value.request_id


def test_the_synchronous_client_makes_it_too(real_server: KeystowServer, tenant: str, tmp_path: Path) -> None:
    """The same server, from ordinary code."""
    data = noise(3 * MIB + 7)
    with Client(real_server.address) as client:
        client.put(tenant, "k", io.BytesIO(data))
        with client.get(tenant, "k") as download:
            assert b"".join(download) == data
        client.get(tenant, "k", tmp_path / "dest")
        assert (tmp_path / "dest").read_bytes() == data
        assert [info.key for info in client.list(tenant)] == ["k"]
        client.delete(tenant, "k")
        assert list(client.list(tenant)) == []


async def test_writing_conditions_are_the_servers(real_server: KeystowServer, tenant: str) -> None:
    """Create refuses, overwrite replaces, a version is replaced once."""
    async with AsyncClient(real_server.address) as client:
        first = await client.put(tenant, "k", b"1")
        with pytest.raises(AlreadyExistsError):
            await client.put(tenant, "k", b"2")
        second = await client.put(tenant, "k", b"2", if_version_id=first.version_id)
        with pytest.raises(FailedPreconditionError) as failure:
            await client.put(tenant, "k", b"3", if_version_id=first.version_id)
        assert failure.value.reason == "VERSION_MISMATCH"
        third = await client.put(tenant, "k", b"3", mode=WriteMode.OVERWRITE)
        assert len({first.version_id, second.version_id, third.version_id}) == 3


@pytest.mark.parametrize("size", [10, 3 * MIB])
async def test_repeating_an_upload_stores_nothing_new(real_server: KeystowServer, tenant: str, size: int) -> None:
    """The same upload_id and bytes answer the same version, and other bytes are refused."""
    upload = "6f1c1f7e-0d3f-4d5e-9d4a-1f6c1f7e0d3f"
    async with AsyncClient(real_server.address) as client:
        first = await client.put(tenant, "k", bytes(size), upload_id=upload)
        assert await client.put(tenant, "k", bytes(size), upload_id=upload) == first
        with pytest.raises(AlreadyExistsError) as failure:
            await client.put(tenant, "k", bytes(size - 1) + b"?", upload_id=upload)
    assert failure.value.reason == "UPLOAD_ID_REUSED"


async def test_an_early_refusal_ends_a_large_put(real_server: KeystowServer, tenant: str) -> None:
    """A key that is taken is heard of without sending everything."""
    async with AsyncClient(real_server.address) as client:
        await client.put(tenant, "k", b"1")
        sent: list[int] = []
        with pytest.raises(AlreadyExistsError):
            await client.put(tenant, "k", (bytes(MIB) for _ in range(1000)), progress=sent.append)
    assert len(sent) < 500


def once(data: bytes) -> Iterator[bytes]:
    """An iterator, in pieces that have nothing to do with chunks."""
    for start in range(0, len(data), 300_001):
        yield data[start : start + 300_001]


@pytest.mark.parametrize("kind", [bytes, once])
async def test_broken_connections_cost_only_what_was_in_flight(
    real_server: KeystowServer, tenant: str, kind: Callable[[bytes], Any]
) -> None:
    """A Put whose connection is reset over and over goes on with the same upload, a Get with the same version."""
    data = noise(50 * MIB + 7)
    heard: list[UploadProgress] = []
    port = int(real_server.address.rpartition(":")[2])
    with Relay(port) as relay:
        relay.cuts.extend([("sent", 20 * MIB), ("sent", 100), ("sent", 20 * MIB), ("got", 50)])
        async with AsyncClient(relay.address, retry=PATIENT) as client:
            await client.put(tenant, "k", kind(data), on_upload_progress=heard.append)
        assert not relay.cuts
    with Relay(port) as relay:
        relay.cuts.extend([("got", 20 * MIB), ("got", 100), ("got", 7 * MIB)])
        async with AsyncClient(relay.address, retry=PATIENT) as client, await client.get(tenant, "k") as download:
            assert b"".join([chunk async for chunk in download]) == data
        assert not relay.cuts
    assert {progress.upload_id for progress in heard} == {heard[0].upload_id}
    assert heard[0].persisted_size == 0
    assert heard[-1].persisted_size > 8 * MIB


async def test_an_upload_goes_on_in_another_client_or_is_discarded(real_server: KeystowServer, tenant: str) -> None:
    """With its last progress; a discarded or unknown one begins anew."""
    data = noise(30 * MIB)
    async with AsyncClient(real_server.address) as client:
        for key, abort in (("k", False), ("l", True)):
            heard: list[UploadProgress] = []

            def failing(heard: list[UploadProgress] = heard) -> Iterator[bytes]:
                yield data[: 20 * MIB]
                while not heard or heard[-1].persisted_size < 16 * MIB:
                    yield b""
                raise OSError("the process died")

            with pytest.raises(OSError, match="died"):
                await client.put(tenant, key, failing(), on_upload_progress=heard.append)
            if abort:
                await client.abort_put(tenant, key, heard[-1])
                await client.abort_put(tenant, key, heard[-1])
            sent: list[int] = []
            info = await client.put(tenant, key, data, resume_from=heard[-1], progress=sent.append)
            assert info.crc32c == google_crc32c.value(data)
            assert sent[-1] == len(data)
            assert (MIB in sent) is abort  # from the first byte


async def test_sha256_is_verified_by_the_server(real_server: KeystowServer, tenant: str) -> None:
    """verify_sha256 comes back as the digest the server computed."""
    data = noise(2 * MIB)
    async with AsyncClient(real_server.address) as client:
        info = await client.put(tenant, "k", data, verify_sha256=True)
    assert info.sha256 == hashlib.sha256(data).digest()


async def test_pages_and_prefixes(real_server: KeystowServer, tenant: str) -> None:
    """Listing walks through all pages, and a bad page size is the server's refusal, field by field."""
    async with AsyncClient(real_server.address) as client:
        for number in range(7):
            await client.put(tenant, f"a/{number}", b"x")
        await client.put(tenant, "b", b"x")
        keys = [info.key async for info in client.list(tenant, "a/", page_size=3)]
        assert keys == [f"a/{number}" for number in range(7)]
        page = await client.list_page(tenant, page_size=3)
        assert len(page.objects) == 3
        assert page.next_page_token
        with pytest.raises(InvalidRequestError) as failure:
            await client.list_page(tenant, page_size=1001)
    assert [violation.subject for violation in failure.value.violations] == ["page_size"]


async def test_tenants_are_registered_once_and_found(real_server: KeystowServer, tenant: str) -> None:
    """Registering the same again is no failure, another choice is; the tenant is in the list."""
    async with AsyncClient(real_server.address) as client:
        found = await client.get_tenant(tenant)
        assert (found.key_management, found.data_center) == (KeyManagement.PROVIDER, "us")
        again = await client.register_tenant(
            tenant, data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True
        )
        assert isinstance(again, Registration)
        assert again.tenant.tenant_id == tenant
        with pytest.raises(AlreadyExistsError):
            await client.register_tenant(
                tenant, data_center="eu", key_management=KeyManagement.PROVIDER, confirm_permanent=True
            )
        assert tenant in [each.tenant_id async for each in client.list_tenants(page_size=1)]
        assert "us" in [each.name for each in await client.list_data_centers()]
        assert (await client.server_info()).max_chunk_size == 2 * MIB


async def test_a_failure_writes_nothing(real_server: KeystowServer, tenant: str, tmp_path: Path) -> None:
    """A missing object and an unknown tenant leave no file."""
    async with AsyncClient(real_server.address) as client:
        for name, reason in ((tenant, "OBJECT_NOT_FOUND"), ("nobody", "TENANT_NOT_FOUND")):
            with pytest.raises(KeystowError) as failure:
                await client.get(name, "k", tmp_path / "dest")
            assert failure.value.reason == reason
    assert names(tmp_path) == []
