"""What a server says of itself: GetServerInfo, health, reflection, and methods that nobody knows."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keystow.v1.storage_pb2 import GetServerInfoRequest, ListRequest
from rpc.wire import MIB, PATHS, TIMEOUT, content, failure, put
from servers.in_process import Server, register, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVICES = {path.split("/")[1] for path in PATHS.values()}


async def test_server_info_tells_the_limits_in_force(server: Server, tenant: str) -> None:
    """Version and limits; 0 never means unlimited, so there is none."""
    info = await server.storage.GetServerInfo(GetServerInfoRequest())
    assert info.version == version("keystow-service")
    assert (info.max_chunk_size, info.max_small_object_size) == (2 * MIB, 2 * MIB)
    assert (info.max_key_size, info.max_metadata_size, info.max_page_size) == (900, 1024, 1000)
    assert (info.stall_timeout_seconds, info.max_object_size) == (60, 1200 << 30)
    await put(server, tenant, "k" * info.max_key_size, content(info.max_chunk_size))


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
async def test_health_answers(server: Server, service: str) -> None:
    """SERVING for the server as a whole, and for each service by its name."""
    answer = await health(server, service)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_knows_its_services(server: Server) -> None:
    """A misspelt name is no healthy service."""
    told = await failure(health(server, "keystow.v1.StorageServise"))
    assert told.code is grpc.StatusCode.NOT_FOUND


async def health(server: Server, service: str) -> Any:
    """One check."""
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    return await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)


async def test_reflection_describes_the_contract(server: Server) -> None:
    """A generic client finds both services, and every method of theirs."""
    listed = await reflect(server, list_services="*")
    assert {each.name for each in listed.list_services_response.service} >= SERVICES
    for service in sorted(SERVICES):
        answer = await reflect(server, file_containing_symbol=service)
        [encoded] = answer.file_descriptor_response.file_descriptor_proto[:1]
        file = FileDescriptorProto.FromString(encoded)
        methods = {f"/{file.package}.{each.name}/{method.name}" for each in file.service for method in each.method}
        assert methods == {path for path in PATHS.values() if path.split("/")[1] == service}


async def reflect(server: Server, **question: Any) -> Any:
    """One question."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(server.channel)  # type: ignore[arg-type] # as generated
    request = reflection_pb2.ServerReflectionRequest(**question)
    [answer] = [answer async for answer in stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT)]
    return answer


async def test_a_method_that_nobody_knows(server: Server) -> None:
    """UNIMPLEMENTED by gRPC itself, for a newer client's call to an older server."""
    call: Any = server.channel.unary_unary("/keystow.v1.StorageService/Teleport")
    told = await failure(call(b"", timeout=TIMEOUT))
    assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "")


async def test_a_data_centre_that_left_the_configuration(tmp_path: Path) -> None:
    """Its tenants are told what the operator has to mend, not that something went wrong."""
    places = {name: {"region": region} for name, region in (("us", "us-east-1"), ("eu", "eu-west-1"))}
    async with serving(tmp_path, data_centers=places) as running:
        await register(running, "acme", data_center="eu")
    async with serving(tmp_path, data_centers={"us": places["us"]}) as running:
        told = await failure(running.storage.List(ListRequest(tenant_id="acme")))
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.INTERNAL, "STORE_MISCONFIGURED", "wait")
