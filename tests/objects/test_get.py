"""Get through a real channel: whole objects, every kind of range, and pinned versions."""

from itertools import product

import grpc
import pytest

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import WRITE_MODE_OVERWRITE, DeleteRequest, GetRequest, StatRequest
from rpc.wire import MIB, TIMEOUT, content, failure, get, put, received
from servers.in_process import NARROW_WINDOW, Server, connected

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 2 * MIB + 5  # two full segments, and a short one
LARGEST = (1 << 63) - 1

# Around every border that there is: segments, the end, the beginning from the end.
OFFSETS = (0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, SIZE - 1, SIZE, -1, -5, -6, -SIZE + 1, -SIZE, -SIZE - 1, -LARGEST - 1)
LENGTHS = (None, 0, 1, 5, MIB, MIB + 1, SIZE, LARGEST)


async def test_every_range_is_the_slice(server: Server, tenant: str) -> None:
    """Any offset with any length gives what a slice of the object gives, and the header says which range it is."""
    data = content(SIZE)
    stored = await put(server, tenant, "key", data)
    for offset, length in product(OFFSETS, LENGTHS):
        read = await get(server, tenant, "key", offset=offset, length=length)
        start = offset if offset >= 0 else max(0, SIZE + offset)
        end = SIZE if length is None else min(SIZE, start + length)
        assert (read.offset, read.length) == (start, end - start), (offset, length)
        assert read.data == data[start:end], (offset, length)
        assert (read.object.version_id, read.object.size) == (stored.version_id, SIZE)


@pytest.mark.parametrize("size", [0, 1, MIB])
async def test_a_range_past_the_end(server: Server, tenant: str, size: int) -> None:
    """An offset of the object's size reads nothing; one more is an error, which says how long the object is."""
    await put(server, tenant, "key", content(size))
    assert (await get(server, tenant, "key", offset=size)).data == b""
    for offset in (size + 1, LARGEST):
        for length in (None, 0, 1, LARGEST):
            told = await failure(get(server, tenant, "key", offset=offset, length=length))
            assert (told.code, told.reason, told.recovery) == (
                grpc.StatusCode.OUT_OF_RANGE,
                "RANGE_NOT_SATISFIABLE",
                "none",
            )
            assert str(size) in told.message


async def test_an_empty_object(server: Server, tenant: str) -> None:
    """Header, no chunk, finish: of the whole, and of every range of it."""
    stored = await put(server, tenant, "key")
    read = await get(server, tenant, "key")
    assert (read.object, read.data, read.crc32c) == (stored, b"", 0)
    for offset in (0, -1, -LARGEST - 1):
        assert (await get(server, tenant, "key", offset=offset, length=1)).length == 0


async def test_a_pinned_version(server: Server, tenant: str) -> None:
    """The current version is read by its id; after an overwrite or a delete that id reads nothing any more."""
    first = await put(server, tenant, "key", b"first")
    assert (await get(server, tenant, "key", version_id=first.version_id)).data == b"first"
    second = await put(server, tenant, "key", b"second", write_mode=WRITE_MODE_OVERWRITE)
    stat = server.storage.Stat(StatRequest(tenant_id=tenant, key="key", version_id=first.version_id))
    for call in (get(server, tenant, "key", version_id=first.version_id), stat):
        told = await failure(call)
        assert (told.code, told.reason, told.recovery) == (grpc.StatusCode.ABORTED, "OBJECT_CHANGED", "restart")
    assert (await get(server, tenant, "key", version_id=second.version_id)).data == b"second"
    await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
    told = await failure(get(server, tenant, "key", version_id=second.version_id))
    assert told.reason == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize("deed", ["overwrite", "delete"])
async def test_an_object_replaced_while_it_is_read(server: Server, tenant: str, deed: str) -> None:
    """A Get gives one whole version, or fails: never a mixture, and never OK with less than all."""
    data = content(24 * MIB)  # more than is read ahead
    await put(server, tenant, "key", data, size=len(data))
    async with connected(server.address, NARROW_WINDOW) as channel:
        storage = storage_pb2_grpc.StorageServiceStub(channel)
        stream = aiter(storage.Get(GetRequest(tenant_id=tenant, key="key"), timeout=TIMEOUT))
        assert (await anext(stream)).header.length == len(data)
        if deed == "overwrite":
            await put(server, tenant, "key", content(len(data), "new"), size=len(data), write_mode=WRITE_MODE_OVERWRITE)
        else:
            await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
        plaintext = bytearray()
        told = await failure(received(stream, plaintext))
    assert told.reason == {"overwrite": "OBJECT_CHANGED", "delete": "OBJECT_NOT_FOUND"}[deed]
    assert data.startswith(plaintext)


async def test_other_errors_name_tenant_and_key(server: Server, tenant: str) -> None:
    """What the request named comes back as ErrorInfo metadata, so that a caller with many calls knows which failed."""
    told = await failure(get(server, tenant, "a/missing key"))
    assert told.metadata
    assert (told.metadata["tenantId"], told.metadata["objectKey"]) == (tenant, "a/missing key")
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND")
