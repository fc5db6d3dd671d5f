"""Every byte that a server leaves behind, after a kill in the middle of its work: no plaintext, and no data key."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from keystow.v1.storage_pb2 import PutSmallRequest
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.adapters.local_keyring import open_local_keyring
from keystow_service.envelope import header as object_header
from keystow_service.envelope.layout import HEADER_LENGTH
from keystow_service.keys.encryption_context import encryption_context
from keystow_service.model import KeyArn, TenantId
from rpc.exports import export, request
from rpc.interrupted import PART, PutCall, begin
from rpc.wire import MIB, chunk, content, get, header, pieces_of, put, until
from servers.in_process import Server, attached, register
from servers.keystow import keystow_server

TENANT = "acme"
MARKER = content(64, "marker")
DATA = MARKER * (PART * 2 // len(MARKER))  # the first part is closed, the second is not


@pytest.mark.asyncio(loop_scope="session")
async def test_what_a_killed_server_leaves(tmp_path: Path) -> None:
    """Objects, uploads under way and to be resumed, registry, audit and log hold neither, in any usual spelling."""
    keyring = tmp_path / "keyring" / "keyring.json", tmp_path / "keyring" / "root.key"
    with keystow_server(tmp_path) as process:
        arn = KeyringAdmin(*keyring, SystemClock()).create("us-east-1", tenants=[TENANT]).arn
        async with attached(process.address, tmp_path) as server:
            await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn.text)
            await put(server, TENANT, "finished", DATA)
            await server.storage.PutSmall(PutSmallRequest(header=header(TENANT, "small").header, data=MARKER))
            await get(server, TENANT, "finished")
            await export(server, request(TENANT))
            resumable = await begin(server, TENANT, "to be resumed")
            await resumable.send(DATA)
            await resumable.told_of(PART)
            under_way = await begun(server)
            await until(lambda: len(headers_of(everything_in(server.data_dir))) == 4)  # two of them not finished
            process.kill()
            for call in (resumable.call, under_way):
                call.cancel()
        log = "".join(process.output).encode()
    left = everything_in(tmp_path)
    service = open_local_keyring(*keyring, SystemClock())
    context = encryption_context(TenantId(TENANT), "local")
    wrapped = {object_header.parse(data).wrap.wrapped_key for data in headers_of(left)}
    data_keys = {(await service.unwrap(KeyArn.parse(arn.text), each, context)).plaintext for each in wrapped}
    secrets = {spelled(secret) for secret in (MARKER, *data_keys) for spelled in SPELLINGS}
    for name, data in (*left.items(), ("log", log)):
        assert not [secret for secret in secrets if secret in data], name


SPELLINGS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    lambda secret: secret.hex().encode(),
    lambda secret: base64.b64encode(secret).rstrip(b"="),
    lambda secret: base64.urlsafe_b64encode(secret).rstrip(b"="),
    lambda secret: repr(secret)[2:-1].encode(),
)


def everything_in(folder: Path) -> Mapping[Path, bytes]:
    """All files below."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def headers_of(files: Mapping[Path, bytes]) -> Sequence[bytes]:
    """Of those that are objects, or may become some."""
    return [data[:HEADER_LENGTH] for data in files.values() if data.startswith(object_header.MAGIC)]


async def begun(server: Server) -> PutCall:
    """A plain Put of which everything was sent but its end."""
    call: PutCall = server.storage.Put()
    await call.write(header(TENANT, "under way"))
    for number, piece in enumerate(pieces_of(DATA)):
        await call.write(chunk(number * MIB, piece))
    return call
