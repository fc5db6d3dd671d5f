"""A real keystow server in the test's own event loop: the composition root, real adapters, and a real channel to it.

Modules that use the fixtures say ``pytestmark = pytest.mark.asyncio(loop_scope="session")``: a server, shared by its
module, lives in one loop with all its tests.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio

from keystow.v1 import storage_pb2_grpc, tenants_pb2_grpc
from keystow.v1.tenants_pb2 import KEY_MANAGEMENT_PROVIDER, RegisterTenantRequest
from keystow_service.app import open_server
from keystow_service.ports import Clock
from keystow_service.settings import Settings

if TYPE_CHECKING:  # these exist for type checkers only
    from keystow.v1.storage_pb2_grpc import StorageServiceAsyncStub
    from keystow.v1.tenants_pb2_grpc import TenantServiceAsyncStub

DATA_CENTER = "us"  # where the tests' tenants are, unless they say otherwise
# For a client that takes 64 KiB and no more before it reads.
NARROW_WINDOW = ("grpc.http2.bdp_probe", 0)

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]

_tenant_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and stubs on one channel to it."""

    address: str
    data_dir: Path
    channel: grpc.aio.Channel
    blocking_channel: grpc.Channel  # for threads
    storage: "StorageServiceAsyncStub"
    tenants: "TenantServiceAsyncStub"

    def stored(self, tenant_id: str) -> list[Path]:
        """The files of a tenant's objects on the local store."""
        root = self._store / "objects" / tenant_id
        return sorted(path for path in root.rglob("*") if path.is_file())

    def unfinished(self) -> list[Path]:
        """The files of uploads that are under way, or can be resumed, on the local store."""
        own = self._store / ".keystow"
        return sorted([*(own / "uploads").iterdir(), *(own / "resumable").iterdir()])

    @property
    def _store(self) -> Path:
        return self.data_dir / "stores" / DATA_CENTER


@asynccontextmanager
async def serving(data_dir: Path, clock: Clock | None = None, /, **settings: Any) -> AsyncIterator[Server]:
    """Serve over ``data_dir`` on a free loopback port while the block runs. ``settings`` as in Settings."""
    choice = Settings(**{"listen": "127.0.0.1:0", "data_dir": data_dir, **settings})
    async with open_server(choice, clock) as address, attached(address, data_dir) as running:
        yield running


@asynccontextmanager
async def attached(address: str, data_dir: Path) -> AsyncIterator[Server]:
    """Connections to a server, which may be in another process."""
    with grpc.insecure_channel(address, options=_OPTIONS) as blocking_channel:
        async with connected(address) as channel:
            yield Server(
                address,
                data_dir,
                channel,
                blocking_channel,
                storage_pb2_grpc.StorageServiceStub(channel),
                tenants_pb2_grpc.TenantServiceStub(channel),
            )


@asynccontextmanager
async def connected(address: str, *options: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    """A channel with a connection of its own, which no proxy of the machine gets to see."""
    async with grpc.aio.insecure_channel(address, options=[*_OPTIONS, *options]) as channel:
        yield channel


async def register(server: Server, tenant_id: str, **fields: Any) -> str:
    """Register a tenant, with a provider-managed key unless ``fields`` say otherwise; answers its id."""
    choice = {"key_management": KEY_MANAGEMENT_PROVIDER, "data_center": DATA_CENTER, "confirm_permanent": True}
    await server.tenants.RegisterTenant(RegisterTenantRequest(tenant_id=tenant_id, **{**choice, **fields}))
    return tenant_id


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The embedded default: local store, local keyring, SQLite."""
    async with serving(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(server: Server) -> str:
    """The id of a new tenant with a provider-managed key."""
    return await register(server, f"tenant-{next(_tenant_numbers)}")
