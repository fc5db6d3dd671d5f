"""Keys through a real channel: any text is a key, and none is ever taken for a path."""

from urllib.parse import quote

import pytest

from keystow.v1.storage_pb2 import DeleteRequest, ListRequest, StatRequest
from rpc.wire import get, put
from servers.in_process import Server, register

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYS = (
    "a",
    "a/b",
    "a/b/c",
    "a/",
    "a//b",
    "/",
    "//",
    "/etc/passwd",
    ".",
    "..",
    "../../escaped",
    "a/../b",
    "a/./b",
    ".hidden",
    ".keystow/uploads/x",
    "nul\0nul",
    "\0",
    "line\nfeed\r\ttab\x1b[31m\x7f",
    "sp ace",
    " ",
    "%2e%2e%2f",
    "%",
    "a%00b",
    "a!",
    "_a",
    "~root",
    "C:\\Windows",
    "*?[]{}$;&|<>'\"`",
    "Grüße/Österreich",
    "Gru\u0308\u00dfe/O\u0308sterreich",  # the same to the eye, other bytes
    "日本語/ファイル",
    "\N{FLOPPY DISK}",
    "\u202eright to left",
    "\ufeff",
    "\U0010ffff",
    "a" * 900,
    "a" * 255 + "/" + "b" * 255,
    "%" * 300,
    "/" * 450,
    "CON",
    "key.tmp",
)


async def test_every_key_stands_beside_all_others(server: Server, tenant: str) -> None:
    """Stored together, each reads back its own content; List gives back the very keys, in the contract's order."""
    for key in KEYS:
        await put(server, tenant, key, key.encode())
    for key in KEYS:
        assert (await get(server, tenant, key)).data == key.encode()
        assert (await server.storage.Stat(StatRequest(tenant_id=tenant, key=key))).object.key == key
    listed = await server.storage.List(ListRequest(tenant_id=tenant, page_size=1000))
    assert [each.key for each in listed.objects] == sorted(KEYS, key=escaped)
    assert len(server.stored(tenant)) == len(KEYS)
    for key in reversed(KEYS):
        await server.storage.Delete(DeleteRequest(tenant_id=tenant, key=key))
    assert server.stored(tenant) == []


def escaped(key: str) -> str:
    """What List sorts by: letters, digits and "-_./" as they are, all else percent-escaped."""
    return quote(key, safe="/").replace("~", "%7E").replace("/", "/_")


@pytest.mark.parametrize("key", ["../escaped", "/etc/escaped", "a/../../escaped", "..", "objects/../../x"])
async def test_no_key_leaves_its_tenant(server: Server, tenant: str, key: str) -> None:
    """Everything that a Put writes is below its tenant's directory: nothing appears anywhere else in the data."""
    other = await register(server, f"{tenant}-other")
    before = all_files(server)
    await put(server, tenant, key, b"content")
    assert all_files(server) - before == set(map(str, server.stored(tenant)))
    assert server.stored(other) == []


def all_files(server: Server) -> set[str]:
    """Every file below and around the data directory, locks and the registry's journal aside."""
    found = {str(path) for path in server.data_dir.parent.rglob("*") if path.is_file()}
    return {path for path in found if "/locks/" not in path and "registry.db" not in path}
