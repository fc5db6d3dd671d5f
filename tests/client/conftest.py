"""A scripted server, and clients that retry without making tests wait."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from client.command import Command
from client.exporting import Exporting, exporting_server
from client.relay import Relay
from client.scripted import ScriptedServer
from client.secured import Secured, secured_servers
from keystow_client import AsyncClient, Client, KeyManagement, RetryPolicy
from servers.keystow import KeystowServer, keystow_server

FAST = RetryPolicy(max_attempts=6, total_seconds=30, initial_delay=0.001, max_delay=0.01)
# After a broken connection gRPC refuses calls for a tenth of a second before it connects again.
PATIENT = RetryPolicy(max_attempts=100, total_seconds=30, initial_delay=0.02, max_delay=0.1)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """An empty server."""
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
def relay(server: ScriptedServer) -> Iterator[Relay]:
    """A way to the server that can break."""
    with Relay(server.port) as breakable:
        yield breakable


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    """Connected to the server."""
    async with AsyncClient(server.address, retry=FAST) as connected:
        yield connected


@pytest.fixture
async def relayed(relay: Relay) -> AsyncIterator[AsyncClient]:
    """Connected through the relay."""
    async with AsyncClient(relay.address, retry=PATIENT) as connected:
        yield connected


@pytest.fixture
def sync_client(server: ScriptedServer) -> Iterator[Client]:
    """Connected to the server."""
    with Client(server.address, retry=FAST) as connected:
        yield connected


@pytest.fixture
def keystow(server: ScriptedServer, tmp_path: Path) -> Command:
    """The command, for the scripted server, in an empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return Command(server.address, directory)


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeystowServer]:
    """A server as operators run it, over local storage."""
    with keystow_server(tmp_path_factory.mktemp("real-server")) as running:
        yield running


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Servers in TLS and in mTLS."""
    with secured_servers(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="session")
def exporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporting]:
    """A server as operators run it, whose exports have many checkpoints."""
    with exporting_server(tmp_path_factory.mktemp("exporting")) as running:
        yield running


@pytest.fixture
def tenant(real_server: KeystowServer) -> str:
    """A tenant of the real server's, for one test."""
    name = f"t-{uuid4().hex}"
    with Client(real_server.address) as admin:
        admin.register_tenant(name, data_center="us", key_management=KeyManagement.PROVIDER, confirm_permanent=True)
    return name


@pytest.fixture
def real_keystow(real_server: KeystowServer, tmp_path: Path) -> Command:
    """The command, for the real server, in an empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return Command(real_server.address, directory)
