"""More calls than the server takes: the one too many is told so, and nobody else notices."""

from pathlib import Path

import grpc

from keystow.v1.storage_pb2 import ListRequest, PutHeader, PutRequest
from rpc.wire import TIMEOUT, new_upload_id, told_by
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
        header = PutHeader(tenant_id="acme", key="k", upload_id=new_upload_id())
        puts = [server.storage.Put(timeout=TIMEOUT) for _ in range(2)]
        for put in puts:
            await put.write(PutRequest(header=header))
        while (told := await _listed(server)) is None:
            pass
        assert told == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "retry")
        for put in puts:
            put.cancel()
        while await _listed(server) is not None:
            pass
