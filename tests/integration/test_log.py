"""What a real server writes to its log: one line for each RPC with its fields, and nothing that is anybody's secret."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keystow.v1.storage_pb2 import ERROR_POLICY_CONTINUE, DeleteRequest, GetServerInfoRequest, ListRequest, StatRequest
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.envelope import header as object_header
from keystow_service.envelope.layout import HEADER_LENGTH
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.model import KeyArn, TenantId
from rpc.exports import export, request
from rpc.wire import failure, finish, get, header, put, send, send_put
from servers.in_process import Server, attached, register
from servers.keystow import KeystowServer, keystow_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
# Each in a place of its own, so that a find says where it leaked from.
CONTENT, KEY, CONTENT_TYPE, NAME, VALUE, DISPLAY_NAME = (f"canary-{number}-9c41" for number in range(6))
AUDIT_EVENTS = ("audit_key_created", "audit_checkpoint")  # of a thread of its own
CANARIES = (CONTENT, KEY, CONTENT_TYPE, NAME, VALUE, DISPLAY_NAME)


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[KeystowServer, Server]]:
    """A process, with a tenant there."""
    with keystow_server(data_dir) as process:
        async with attached(process.address, data_dir) as server:
            await register(server, TENANT, display_name=DISPLAY_NAME)
            yield process, server


async def test_one_line_for_each_rpc(tmp_path: Path) -> None:
    """Method, code, reason, request id, principal, tenant, bytes each way and times; nothing else, and in order."""
    async with running(tmp_path) as (process, server):
        await put(server, TENANT, KEY, b"x" * 1000)
        await get(server, TENANT, KEY, offset=100, length=200)
        archive = await export(server, request(TENANT))
        await server.storage.Stat(StatRequest(tenant_id=TENANT, key=KEY))
        await server.storage.List(ListRequest(tenant_id=TENANT))
        missing = await failure(get(server, TENANT, "missing"))
        broken = await failure(send(server, "Put", b"\xff"))
        await server.storage.Delete(DeleteRequest(tenant_id=TENANT, key=KEY))
        await server.storage.GetServerInfo(GetServerInfoRequest())
    lines = [entry for entry in process.log if entry["event"] == "rpc"]
    columns = ("method", "code", "reason", "tenant_id", "bytes_in", "bytes_out")
    assert [tuple(line[column] for column in columns) for line in lines] == [
        ("RegisterTenant", "OK", "", TENANT, 0, 0),
        ("Put", "OK", "", TENANT, 1000, 0),
        ("Get", "OK", "", TENANT, 0, 200),
        ("Export", "OK", "", TENANT, 0, len(archive.data)),
        ("Stat", "OK", "", TENANT, 0, 0),
        ("List", "OK", "", TENANT, 0, 0),
        ("Get", "NOT_FOUND", "OBJECT_NOT_FOUND", TENANT, 0, 0),
        ("Put", "INVALID_ARGUMENT", "REQUEST_INVALID", "", 0, 0),
        ("Delete", "OK", "", TENANT, 0, 0),
        ("GetServerInfo", "OK", "", "", 0, 0),
    ]
    for line in lines:
        assert set(line) == {
            *columns,
            "event",
            "level",
            "timestamp",
            "request_id",
            "principal",
            "seconds",
            "last_plaintext",
        }
        assert line["principal"] == "anonymous"
        assert line["seconds"] >= 0
        assert bool(line["last_plaintext"]) == (line["bytes_out"] > 0)
    assert len({line["request_id"] for line in lines}) == len(lines)
    for told, line in ((missing, lines[6]), (broken, lines[7])):
        assert told.metadata
        assert told.metadata["requestId"] == line["request_id"]
    others = [entry["event"] for entry in process.log if entry["event"] not in ("rpc", *AUDIT_EVENTS)]
    assert others == ["serving", "stopping", "stopped"]
    assert len(process.output) == len(process.log)  # every line is structured


async def test_no_secret_leaves_the_server(tmp_path: Path) -> None:
    """Neither log nor disk holds plaintext or a data key; the log holds no object key and no metadata either."""
    async with running(tmp_path) as (process, server):
        info = await put(
            server, TENANT, KEY, CONTENT.encode() * 1000, content_type=CONTENT_TYPE, metadata={NAME: VALUE}
        )
        await get(server, TENANT, KEY)
        await export(server, request(TENANT, on_error=ERROR_POLICY_CONTINUE))
        await server.storage.Stat(StatRequest(tenant_id=TENANT, key=KEY))
        await server.storage.List(ListRequest(tenant_id=TENANT, prefix=KEY))
        # What fails is logged with more care, if anything.
        await failure(put(server, TENANT, KEY, CONTENT.encode()))
        await failure(get(server, TENANT, f"{KEY} missing"))
        await failure(get(server, TENANT, KEY * 100))
        await failure(send_put(server, header(TENANT, f"{KEY} 2", content_type=f"{CONTENT_TYPE}\n"), finish(0)))
        [file] = server.stored(TENANT)
        stored = bytearray(file.read_bytes())
        data_key = await unwrapped(tmp_path, bytes(stored), info.kms_key_arn)
        file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
        assert (await failure(get(server, TENANT, KEY))).reason == "OBJECT_TAMPERED"
        assert (await failure(export(server, request(TENANT)))).reason == "OBJECT_TAMPERED"
        await failure(export(server, request(TENANT, KEY * 100)))
        await export(server, request(TENANT, on_error=ERROR_POLICY_CONTINUE))
    log = "".join(process.output)
    for canary in (*CANARIES, data_key.hex(), base64.b64encode(data_key).decode(), repr(data_key)[2:-1]):
        assert canary not in log
    on_disk = everything_in(tmp_path)
    assert DISPLAY_NAME.encode() in on_disk  # the search finds what is there
    for secret in (CONTENT, CONTENT_TYPE, NAME, VALUE):
        assert secret.encode() not in on_disk
    for form in (data_key, data_key.hex().encode(), base64.b64encode(data_key)):
        assert form not in on_disk


def everything_in(folder: Path) -> bytes:
    """The bytes of all files below."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def unwrapped(data_dir: Path, stored: bytes, arn: str) -> bytes:
    """An object's data key, as only the keyring can tell."""
    folder = data_dir / "keyring"
    keyring = open_local_keyring(folder / "keyring.json", folder / "root.key", SystemClock())
    wrapped = object_header.parse(stored[:HEADER_LENGTH]).wrap.wrapped_key
    key = await keyring.unwrap(KeyArn.parse(arn), wrapped, encryption_context(TenantId(TENANT), "local"))
    return key.plaintext


async def test_the_data_is_its_owners_alone(tmp_path: Path) -> None:
    """Every file and directory that the server makes is closed to other users of the machine."""
    async with running(tmp_path / "data") as (_, server):
        await put(server, TENANT, "a/b", b"content")
    for path in (tmp_path / "data", *(tmp_path / "data").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
