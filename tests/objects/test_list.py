"""List through a real channel: order, prefixes, pages, and what else may lie in the store."""

import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from keystow.v1.storage_pb2 import DeleteRequest, ListRequest, ListResponse
from rpc.wire import MIB, content, failure, get, put
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

# In the order of the contract: byte order for letters, digits, '-', '_', '.' and '/'; the rest by its escaped form.
KEYS = ["%", "a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "aé", "b", "ß"]
ORDER = ["%", "ß", "a", "aé", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "b"]


async def fill(server: Server, tenant: str) -> str:
    """A tenant with an object at each of KEYS."""
    for key in KEYS:
        await put(server, tenant, key, key.encode())
    return tenant


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def filled(server: Server) -> str:
    """Such a tenant, for tests that change nothing."""
    return await fill(server, await register(server, "filled"))


async def listing(server: Server, tenant: str, **fields: Any) -> ListResponse:
    """One page."""
    return await server.storage.List(ListRequest(tenant_id=tenant, **fields))


async def keys(server: Server, tenant: str, **fields: Any) -> list[str]:
    """Of one page that has all."""
    answer = await listing(server, tenant, **fields)
    assert answer.next_page_token == ""
    return [each.key for each in answer.objects]


async def pages(server: Server, tenant: str, **fields: Any) -> AsyncIterator[list[str]]:
    """All pages, one after the other."""
    token = ""
    while True:
        answer = await listing(server, tenant, page_token=token, **fields)
        yield [each.key for each in answer.objects]
        token = answer.next_page_token
        if not token:
            return


async def test_the_order_is_the_contracts(server: Server, filled: str) -> None:
    """Not the order of a directory tree, and not that of code points."""
    assert await keys(server, filled) == ORDER


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a-", "%", "ß", "b", "c", "aé", "A", "_", "../"])
async def test_a_prefix_is_one_of_the_key(server: Server, filled: str, prefix: str) -> None:
    """Exactly the keys that start with it."""
    assert await keys(server, filled, prefix=prefix) == [key for key in ORDER if key.startswith(prefix)]


@pytest.mark.parametrize("size", [1, 2, 3, len(KEYS) - 1, len(KEYS), len(KEYS) + 1])
@pytest.mark.parametrize("prefix", ["", "a"])
async def test_pages_join_to_the_whole(server: Server, filled: str, size: int, prefix: str) -> None:
    """Every key once and in order, all pages full but the last, which is not empty and has no token."""
    expected = [key for key in ORDER if key.startswith(prefix)]
    found = [page async for page in pages(server, filled, page_size=size, prefix=prefix)]
    assert [key for page in found for key in page] == expected
    assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)
    assert found[-1]


async def test_pages_go_on_where_the_last_key_was(server: Server, tenant: str) -> None:
    """A token outlives its key, and objects that come and go before it."""
    await fill(server, tenant)
    first = await listing(server, tenant, page_size=3)
    assert [each.key for each in first.objects] == ORDER[:3]
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key=ORDER[2]))
    await put(server, tenant, "$", b"new, before the token")
    second = await listing(server, tenant, page_size=1000, page_token=first.next_page_token)
    assert [each.key for each in second.objects] == ORDER[3:]


async def test_a_token_belongs_to_its_list(server: Server, filled: str) -> None:
    """Of another prefix or tenant it is refused, with what helps: list again from the beginning."""
    token = (await listing(server, filled, page_size=1, prefix="a")).next_page_token
    other = await register(server, "filled-2")
    for tenant, prefix in ((filled, ""), (filled, "a/"), (other, "a")):
        told = await failure(listing(server, tenant, prefix=prefix, page_token=token))
        assert (told.code, told.reason, told.recovery) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAGE_TOKEN_INVALID",
            "restart",
        )


async def test_tenants_see_their_own_objects(server: Server, filled: str) -> None:
    """Also where one tenant's id begins like another's."""
    other = await register(server, "filled-3")
    assert await keys(server, other) == []
    await put(server, other, "own", b"content")
    assert await keys(server, other) == ["own"]
    assert await keys(server, filled) == ORDER


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1])
async def test_sizes_need_no_key(server: Server, tenant: str, size: int) -> None:
    """Size, stored size and version are those of the object; what is sealed is left out."""
    stored = await put(server, tenant, "key", content(size), content_type="text/plain", metadata={"a": "b"})
    [listed] = (await listing(server, tenant)).objects
    assert (listed.tenant_id, listed.key) == (tenant, "key")
    assert (listed.size, listed.stored_size, listed.version_id) == (size, stored.stored_size, stored.version_id)
    assert listed.create_time.ToNanoseconds() >= stored.create_time.ToNanoseconds()
    assert not listed.HasField("crc32c")
    assert (listed.content_type, dict(listed.metadata), listed.kms_key_arn) == ("", {}, "")
    assert (await get(server, tenant, "key", version_id=listed.version_id)).object == stored


async def test_foreign_files_are_passed_over(server: Server, tenant: str) -> None:
    """What something else put into the store is no object, and takes no place on a page."""
    await fill(server, tenant)
    folder = server.data_dir / "stores" / "us" / "objects" / tenant
    for name in ("foreign", "_foreign", "_%zz!", "_%61!", ".hidden", "_b!.swp", "_a!~"):
        (folder / name).write_bytes(b"foreign")
    (folder / os.fsdecode(b"_\xff!")).write_bytes(b"foreign")
    (folder / "_link!").symlink_to(folder / "_b!")
    (folder / "_directory!").mkdir()
    found = [page async for page in pages(server, tenant, page_size=2)]
    assert [key for page in found for key in page] == ORDER
    assert [len(page) for page in found] == [2, 2, 2, 2, 2, 1]


async def test_damaged_objects_are_not_hidden(server: Server, tenant: str) -> None:
    """A file of a size that no object has is listed with size -1."""
    await fill(server, tenant)
    [file] = [path for path in server.stored(tenant) if (path.parent.name, path.name) == (tenant, "_b!")]
    os.truncate(file, 100)
    objects = {each.key: each for each in (await listing(server, tenant)).objects}
    assert list(objects) == ORDER
    assert (objects["b"].size, objects["b"].stored_size) == (-1, 100)
    assert {each.size for key, each in objects.items() if key != "b"} == {
        len(key.encode()) for key in KEYS if key != "b"
    }
