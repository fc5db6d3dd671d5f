"""A tenant with objects on the scripted server, and exports of it that break."""

from typing import Any

import grpc
import pytest

from client.content import noise
from client.scripted import MIB, Context, ScriptedServer, Step, fail
from client.scripted_export import archive_of, export_responses
from keystow.v1 import storage_pb2 as pb

OBJECTS = {
    "a": b"",
    "b": noise(2 * MIB + 7),
    "c": noise(3),
    "d": noise(MIB, seed=1),
    "e": noise(100_000),
}
ARCHIVE = archive_of(list(OBJECTS.items()))
DAMAGED = fail(grpc.StatusCode.DATA_LOSS, "OBJECT_TAMPERED", "none")


@pytest.fixture
def stocked(server: ScriptedServer) -> None:
    """Acme has OBJECTS."""
    for key, data in OBJECTS.items():
        server.storage.add(key, data)


def responses(server: ScriptedServer, **fields: Any) -> list[pb.ExportResponse]:
    """What the server answers an Export of everything."""
    request = pb.ExportRequest(tenant_id="acme", **{"format": pb.ARCHIVE_FORMAT_TAR, **fields})
    return export_responses([(each.info, each.data) for each in server.storage.objects.values()], request)


def cut(server: ScriptedServer, messages: int, ending: Step | None = None) -> Step:
    """An honest Export that ends after so many messages: by default well, so that none of them is lost."""

    async def step(request: pb.ExportRequest, context: Context) -> None:
        stored = [(each.info, each.data) for each in server.storage.objects.values()]
        for response in export_responses(stored, request)[:messages]:
            await context.write(response)
        if ending is not None:
            await ending(request, context)

    return step


def answer(*honest: pb.ExportResponse) -> Step:
    """A step that sends these messages and ends well."""

    async def step(_: Any, context: Context) -> None:
        for response in honest:
            await context.write(response)

    return step
