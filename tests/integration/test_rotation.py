"""Rotating a tenant's key: old objects stay readable, new ones are under the new material, nothing is wrapped again."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_SELF
from keystow_service.adapters.clock import SystemClock
from keystow_service.adapters.keyring_admin import KeyringAdmin
from keystow_service.envelope.header import parse
from keystow_service.envelope.layout import HEADER_LENGTH
from rpc.exports import export, request, untar
from rpc.wire import get, put
from servers.in_process import Server, register, serving
from servers.kms.principals import CUSTOMER
from servers.kms.server import faithful_kms
from servers.kms.sessions import client_of
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
SHORT_LEASES = {"lease_refresh": 0.05, "lease_bound": 30}


@dataclass(frozen=True, slots=True)
class Deployment:
    """A tenant with a key of its own. ``version`` reads from a wrapped data key which material it is under."""

    server: Server
    rotate: Callable[[], Awaitable[None]]
    version: Callable[[bytes], int]

    def versions(self) -> dict[bytes, int]:
        """Of every stored object, by its bytes."""
        stored = [path.read_bytes() for path in self.server.stored(TENANT)]
        return {each: self.version(parse(each[:HEADER_LENGTH]).wrap.wrapped_key) for each in stored}


@asynccontextmanager
async def on_local_keyring(data_dir: Path) -> AsyncIterator[Deployment]:
    """Rotated by the command, in a process of its own, while the server runs."""
    async with serving(data_dir, **SHORT_LEASES) as server:
        folder = data_dir / "keyring"
        keyring = KeyringAdmin(folder / "keyring.json", folder / "root.key", SystemClock())
        arn = keyring.create("us-east-1", tenants=[TENANT]).arn.text
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=arn)
        command = [sys.executable, "-m", "keystow_service", "keys", "rotate", arn, "--data-dir", str(data_dir)]

        async def rotate() -> None:
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)

        yield Deployment(server, rotate, lambda wrapped: int.from_bytes(wrapped[17:21]))


@asynccontextmanager
async def on_kms(data_dir: Path) -> AsyncIterator[Deployment]:
    """Rotated by its owner, over the wire."""
    async with (
        faithful_kms() as kms,
        client_of(kms, CUSTOMER) as customer,
        serving_on_kms(kms, data_dir, **SHORT_LEASES) as server,
    ):
        key = kms.create_key(TENANT)
        await register(server, TENANT, key_management=KEY_MANAGEMENT_SELF, kms_key_arn=key.arn)

        async def rotate() -> None:
            await customer.rotate_key_on_demand(KeyId=key.arn)

        yield Deployment(server, rotate, lambda wrapped: wrapped[len(key.key_id)] + 1)


@pytest.mark.parametrize("deployed", [on_local_keyring, on_kms], ids=["local keyring", "KMS"])
async def test_rotation(deployed: Callable[[Path], AbstractAsyncContextManager[Deployment]], tmp_path: Path) -> None:
    """Twice, under a running server: objects of all ages are read and exported, and each stays under its material."""
    async with deployed(tmp_path) as deployment:
        server, keys = deployment.server, itertools.count()
        written: dict[str, bytes] = {}
        for version in (1, 2, 3):
            before = deployment.versions()
            # A lease of before the rotation may still give out its data key.
            while version not in deployment.versions().values():
                key = f"key-{next(keys)}"
                written[key] = key.encode()
                await put(server, TENANT, key, written[key])
            assert before.items() <= deployment.versions().items()
            for key, data in written.items():
                assert (await get(server, TENANT, key)).data == data
            await deployment.rotate()
        assert set(deployment.versions().values()) == {1, 2, 3}
        archive = untar(bytes((await export(server, request(TENANT))).data))
        assert {key: archive[key] for key in written} == written
