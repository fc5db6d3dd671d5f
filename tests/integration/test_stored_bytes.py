"""Every byte that a server leaves behind, after a kill in the middle of its work: no plaintext, and no data key."""

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from servers.keystow import KeystowServer, keystow_server
from servers.kms.principals import PROVIDER, PROVIDER_ACCOUNT
from servers.kms.server import faithful_kms
from servers.moto import MotoServer
from servers.on_aws import aws_place

TENANT = "acme"
DEPLOYMENT = "tests"
CONTEXT = encryption_context(TenantId(TENANT), DEPLOYMENT)
MARKER = content(64, "marker")
DATA = MARKER * (PART * 2 // len(MARKER))  # the first part is closed, the second is not


@dataclass(frozen=True, slots=True)
class Place:
    """A server in a process of its own, with its store and its keys, of which the test sees every byte."""

    process: KeystowServer
    arn: str  # of the tenant's key
    durable: Callable[[], int]  # how many objects and unfinished uploads have bytes in the store
    left: Callable[[], Mapping[str, bytes]]  # all that is stored
    unwrap: Callable[[bytes], bytes]  # a data key, as KMS does


@asynccontextmanager
async def on_one_machine(folder: Path, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Objects on the disk, keys in the local keyring."""
    keyring = folder / "keyring" / "keyring.json", folder / "keyring" / "root.key"
    with keystow_server(folder, settings={"KEYSTOW_DEPLOYMENT_ID": DEPLOYMENT}) as process:
        arn = KeyringAdmin(*keyring, SystemClock()).create("us-east-1", tenants=[TENANT]).arn

        def left() -> Mapping[str, bytes]:
            return everything_in(folder)

        def unwrap(wrapped: bytes) -> bytes:
            service = open_local_keyring(*keyring, SystemClock())
            return asyncio.run(service.unwrap(KeyArn.parse(arn.text), wrapped, CONTEXT)).plaintext

        yield Place(process, arn.text, lambda: len(headers_of(left())), left, unwrap)


@asynccontextmanager
async def on_aws(folder: Path, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Objects in a bucket, keys in KMS."""
    async with faithful_kms("us-east-1") as kms:
        with aws_place(moto, monkeypatch) as (place, bucket):
            key, provider_key = kms.create_key(TENANT), kms.create_key("*", account=PROVIDER_ACCOUNT)
            data_center = place.model_dump(mode="json", exclude_none=True) | {
                "provider_key_arn": provider_key.arn,
                "kms_endpoint": kms.endpoints["us-east-1"],
            }
            settings = {
                "KEYSTOW_DEPLOYMENT_ID": DEPLOYMENT,
                "KEYSTOW_DATA_CENTERS": json.dumps({"us": data_center}),
                **PROVIDER.environment,
            }

            def durable() -> int:
                return len(bucket.sizes()) + sum(bool(bucket.parts(upload)) for upload in bucket.unfinished())

            def left() -> Mapping[str, bytes]:
                for upload in bucket.unfinished():
                    bucket.completed(upload)  # then it is an object, too
                return {**{name: bucket.read(name) for name in bucket.sizes()}, **everything_in(folder)}

            def unwrap(wrapped: bytes) -> bytes:
                return key.material.decrypt(wrapped, CONTEXT)

            with keystow_server(folder, settings=settings) as process:
                yield Place(process, key.arn, durable, left, unwrap)


PLACES = {"one machine": on_one_machine, "aws": on_aws}


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("where", PLACES)
async def test_what_a_killed_server_leaves(
    tmp_path: Path, moto: MotoServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Objects, uploads under way and to be resumed, registry, audit and log hold neither, in any usual spelling."""
    async with PLACES[where](tmp_path, moto, monkeypatch) as place:
        async with attached(place.process.address, tmp_path) as server:
            await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=place.arn)
            await put(server, TENANT, "finished", DATA)
            await server.storage.PutSmall(PutSmallRequest(header=header(TENANT, "small").header, data=MARKER))
            await get(server, TENANT, "finished")
            await export(server, request(TENANT))
            resumable = await begin(server, TENANT, "to be resumed")
            await resumable.send(DATA)
            await resumable.told_of(PART)
            under_way = await begun(server)
            await until(lambda: place.durable() == 4)  # two of them not finished
            place.process.process.send_signal(signal.SIGKILL)
            for call in (resumable.call, under_way):
                call.cancel()
        left = await asyncio.to_thread(place.left)
        wrapped = {object_header.parse(data).wrap.wrapped_key for data in headers_of(left)}
        assert len(headers_of(left)) == 4
        data_keys = [await asyncio.to_thread(place.unwrap, each) for each in wrapped]
        log = "".join(place.process.output).encode()
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


def everything_in(folder: Path) -> Mapping[str, bytes]:
    """All files below."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def headers_of(files: Mapping[str, bytes]) -> Sequence[bytes]:
    """Of those that are objects, or may become some."""
    return [data[:HEADER_LENGTH] for data in files.values() if data.startswith(object_header.MAGIC)]


async def begun(server: Server) -> PutCall:
    """A plain Put of which everything was sent but its end."""
    call: PutCall = server.storage.Put()
    await call.write(header(TENANT, "under way"))
    for number, piece in enumerate(pieces_of(DATA)):
        await call.write(chunk(number * MIB, piece))
    return call
