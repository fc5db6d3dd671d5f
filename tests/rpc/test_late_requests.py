"""Calls whose request does not come: they count from their beginning, and are not waited for without end."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from keystow.v1.storage_pb2 import GetServerInfoRequest
from rpc.wire import PATHS, TIMEOUT, Failure, failure
from servers.in_process import Server, serving

HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

pytestmark = pytest.mark.asyncio(loop_scope="session")


def begun(server: Server, path: str) -> Any:
    """A call of which nothing has been sent but that it is one."""
    call: Any = server.channel.stream_stream(path)
    return call(timeout=TIMEOUT)


async def first_to_end(calls: list[Any]) -> Failure:
    """What the one fails with that is not like the others, which are taken back then. They arrive in any order."""
    ends = [asyncio.create_task(failure(call.read())) for call in calls]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    told = done.pop().result()
    for call in calls:
        call.cancel()
    await asyncio.gather(*ends, return_exceptions=True)
    return told


async def test_a_request_that_does_not_come(tmp_path: Path) -> None:
    """Every RPC ends with its reason after the stall timeout, those of one request too."""
    async with serving(tmp_path, stall_timeout=0.5) as server:
        calls = {method: begun(server, path) for method, path in PATHS.items()}
        assert {method: (await failure(call.read())).reason for method, call in calls.items()} == dict.fromkeys(
            PATHS, "STREAM_STALLED"
        )


async def test_a_call_counts_before_its_request_is_there(tmp_path: Path) -> None:
    """What such calls hold in memory is bounded as for all others: beyond max_calls they are refused."""
    async with serving(tmp_path, max_calls=4) as server:
        told = await first_to_end([begun(server, PATHS["Stat"]) for _ in range(5)])
        assert (told.reason, told.recovery) == ("OVERLOADED", "retry")


@pytest.mark.parametrize("path", [HEALTH, REFLECTION])
async def test_so_do_calls_of_services_that_are_not_ours(tmp_path: Path, path: str) -> None:
    """They have a limit of their own, of as many."""
    async with serving(tmp_path, max_calls=4) as server:
        told = await first_to_end([begun(server, path) for _ in range(5)])
        assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await server.storage.GetServerInfo(GetServerInfoRequest(), timeout=TIMEOUT)


async def test_a_health_check_that_does_not_come(tmp_path: Path) -> None:
    """It ends after the stall timeout, and one that comes is answered."""
    async with serving(tmp_path, stall_timeout=0.5) as server:
        assert (await failure(begun(server, HEALTH).read())).code is grpc.StatusCode.DEADLINE_EXCEEDED
        health: Any = HealthStub(server.channel)  # its stubs know no methods
        check = health.Check(HealthCheckRequest(), timeout=TIMEOUT)
        assert (await check).status == HealthCheckResponse.SERVING
