"""More calls than the server takes: the one too many is told so, and nobody else notices."""

from pathlib import Path

import grpc

from keystow.v1.storage_pb2 import ListRequest
from rpc.interrupted import begin
from rpc.wire import TIMEOUT, told_by
from servers.in_process import Server, register, serving


async def _listed(server: Server) -> tuple[grpc.StatusCode, str, str] | None:
    """How List fails, if it does."""
    try:
        await server.storage.List(ListRequest(tenant_id="acme"), timeout=TIMEOUT)
    except grpc.RpcError as error:
        told = told_by(error)
        return told.code, told.reason, told.recovery
    return None


async def test_one_call_too_many(tmp_path: Path) -> None:
    """OVERLOADED while as many as max_calls are under way, and welcome again once one has ended."""
    async with serving(tmp_path, max_calls=2) as server:
        await register(server, "acme")
        puts = [await begin(server, "acme", key) for key in ("first", "second")]
        for put in puts:
            await put.told()  # so it is under way
        assert await _listed(server) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "retry")
        for put in puts:
            put.call.cancel()
        while await _listed(server) is not None:
            pass
