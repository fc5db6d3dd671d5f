"""A server from start to stop, as a process of its own: graceful and not, and what is left for the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from keystow.v1.storage_pb2 import GetServerInfoRequest, PutRequest, PutResponse
from keystow.v1.tenants_pb2 import GetTenantRequest
from keystow_service.app import StartError, open_server
from keystow_service.settings import Settings
from rpc.wire import MIB, TIMEOUT, body, content, failure, get, header, pieces_of, put, until
from servers.in_process import Server, attached, register
from servers.keystow import KeystowServer, keystow_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "acme"
DATA = content(9 * MIB)  # a part, which goes to the disk at once, and a bit more
MESSAGES = [header(TENANT, "running"), *body(pieces_of(DATA))]

PutCall = grpc.aio.StreamStreamCall[PutRequest, PutResponse]


@asynccontextmanager
async def running(data_dir: Path, **settings: str) -> AsyncIterator[tuple[KeystowServer, Server]]:
    """A process over ``data_dir``, and a connection to it."""
    with keystow_server(data_dir, settings=settings) as process:
        async with attached(process.address, data_dir) as server:
            yield process, server


async def begin_put(server: Server) -> PutCall:
    """All but PutFinish; the server has a part of it on its disk."""
    call: PutCall = server.storage.Put(timeout=TIMEOUT)
    for message in MESSAGES[:-1]:
        await call.write(message)
    await until(lambda: server.unfinished() != [])
    return call


def stopping(process: KeystowServer) -> bool:
    """Whether it has said so."""
    return any(entry["event"] == "stopping" for entry in process.log)


async def test_a_graceful_stop_finishes_what_runs(tmp_path: Path) -> None:
    """After SIGTERM a running Put is acknowledged, new calls are refused by name, and the next server has it all."""
    async with running(tmp_path) as (process, server):
        await register(server, TENANT)
        await put(server, TENANT, "before", b"before")
        call = await begin_put(server)
        process.terminate()
        await until(lambda: stopping(process))
        for refused in (
            server.storage.GetServerInfo(GetServerInfoRequest()),
            server.tenants.GetTenant(GetTenantRequest(tenant_id=TENANT)),
            get(server, TENANT, "before"),
            put(server, TENANT, "after", b"after"),
        ):
            told = await failure(refused)
            assert (told.code, told.reason, told.recovery) == (
                grpc.StatusCode.UNAVAILABLE,
                "SHUTTING_DOWN",
                "retry",
            )
        health = await HealthStub(server.channel).Check(HealthCheckRequest())  # type: ignore[attr-defined] # untyped
        assert health.status == HealthCheckResponse.NOT_SERVING
        await call.write(MESSAGES[-1])
        response = await call.read()
        assert isinstance(response, PutResponse)
        acknowledged = response.result.object
        assert await asyncio.to_thread(process.wait) == 0
        assert process.log[-1]["event"] == "stopped"
    async with running(tmp_path) as (_, server):
        for key, data in (("before", b"before"), ("running", DATA)):
            assert (await get(server, TENANT, key)).data == data
        assert (await get(server, TENANT, "running")).object == acknowledged
        assert (await failure(get(server, TENANT, "after"))).reason == "OBJECT_NOT_FOUND"


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """When the drain time is over, what still runs is ended and leaves nothing; the exit is still in order."""
    async with running(tmp_path, KEYSTOW_DRAIN_TIMEOUT="0.2") as (process, server):
        await register(server, TENANT)
        call = await begin_put(server)
        process.terminate()
        assert (await failure(call.read())).code is not grpc.StatusCode.OK
        assert await asyncio.to_thread(process.wait) == 0
        assert server.unfinished() == []
        assert server.stored(TENANT) == []


async def test_a_killed_server(tmp_path: Path) -> None:
    """After SIGKILL in the middle of a Put the next server has what was acknowledged, and clears the rest away."""
    async with running(tmp_path) as (process, server):
        await register(server, TENANT)
        await put(server, TENANT, "acknowledged", DATA)
        call = await begin_put(server)
        process.kill()
        told = await failure(call.read())
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "")
        assert server.unfinished() != []
    async with running(tmp_path) as (_, server):
        await until(lambda: server.unfinished() == [])
        assert (await get(server, TENANT, "acknowledged")).data == DATA
        assert (await failure(get(server, TENANT, "running"))).reason == "OBJECT_NOT_FOUND"
        await put(server, TENANT, "running", DATA)


async def test_a_port_has_one_server(tmp_path: Path) -> None:
    """A second server does not share the port, in which case each would get some of the calls: it says why and ends."""
    async with running(tmp_path / "one") as (_, server):
        second = keystow_server(tmp_path / "two", settings={"KEYSTOW_LISTEN": server.address})
        with pytest.raises(RuntimeError, match=f"cannot listen on {server.address}: the port is in use"), second:
            pass
        with pytest.raises(StartError, match="the port is in use"):
            async with open_server(Settings(listen=server.address, data_dir=tmp_path / "three")):
                pass
        await server.storage.GetServerInfo(GetServerInfoRequest())


async def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    """A file in its place is named."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StartError, match=str(file)):
        async with open_server(Settings(listen="127.0.0.1:0", data_dir=file)):
            pass


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """One line for the operator, exit code 1, no traceback."""
    keyring = tmp_path / "keyring"
    keyring.mkdir(mode=0o700)
    (keyring / "keyring.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"keyring\.json") as error, keystow_server(tmp_path):
        pass
    assert "Traceback" not in str(error.value)
