"""Many callers at once on one key: one whole version wins, and nobody ever sees anything else."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

from keystow.v1.storage_pb2 import WRITE_MODE_CREATE, WRITE_MODE_OVERWRITE, DeleteRequest
from rpc.wire import MIB, content, get, put, told_by
from servers.in_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

WRITERS = 6


async def outcome(call: Any) -> str:
    """OK, or the reason of the failure."""
    try:
        await call
    except grpc.RpcError as error:
        return told_by(error).reason
    return "OK"


@pytest.mark.parametrize("size", [0, 1000, 9 * MIB])
async def test_of_creates_one_wins(server: Server, tenant: str, size: int) -> None:
    """Exactly one CREATE of a key is acknowledged, its content stands, and the others left nothing."""
    contents = [content(size, f"writer {number}") for number in range(WRITERS)]
    outcomes = await asyncio.gather(
        *(outcome(put(server, tenant, "key", data, write_mode=WRITE_MODE_CREATE)) for data in contents)
    )
    assert Counter(outcomes) == {"OK": 1, "OBJECT_EXISTS": WRITERS - 1}
    assert (await get(server, tenant, "key")).data == contents[outcomes.index("OK")]
    assert (len(server.stored(tenant)), server.unfinished()) == (1, [])


@pytest.mark.parametrize("size", [1000, 9 * MIB])
async def test_of_replacements_of_one_version_one_wins(server: Server, tenant: str, size: int) -> None:
    """if_version_id makes a chain: of all who replace the same version, one does."""
    first = await put(server, tenant, "key", b"first")
    contents = [content(size, f"writer {number}") for number in range(WRITERS)]
    outcomes = await asyncio.gather(
        *(outcome(put(server, tenant, "key", data, if_version_id=first.version_id)) for data in contents)
    )
    assert Counter(outcomes) == {"OK": 1, "VERSION_MISMATCH": WRITERS - 1}
    assert (await get(server, tenant, "key")).data == contents[outcomes.index("OK")]
    assert (len(server.stored(tenant)), server.unfinished()) == (1, [])


async def test_readers_beside_writers_see_whole_versions(server: Server, tenant: str) -> None:
    """While a key is overwritten, deleted and put again, a Get gives one whole version, or says what happened."""
    versions = {number: content(3 * MIB, f"version {number}") for number in range(8)}
    await put(server, tenant, "key", versions[0])
    whole = set(versions.values())
    running = True
    seen: Counter[str] = Counter()

    async def read() -> None:
        while running:
            try:
                read = await get(server, tenant, "key")
            except grpc.aio.AioRpcError as error:
                seen[told_by(error).reason] += 1
            else:
                assert read.data in whole
                seen["OK"] += 1

    readers = [asyncio.create_task(read()) for _ in range(3)]
    for number in range(1, len(versions)):
        if number % 3 == 0:
            await server.storage.Delete(DeleteRequest(tenant_id=tenant, key="key"))
        await put(server, tenant, "key", versions[number], write_mode=WRITE_MODE_OVERWRITE)
    running = False
    await asyncio.gather(*readers)
    assert set(seen) <= {"OK", "OBJECT_CHANGED", "OBJECT_NOT_FOUND"}
    assert seen["OK"] > 0
    assert (await get(server, tenant, "key")).data == versions[7]


async def test_many_small_calls_at_once(server: Server, tenant: str) -> None:
    """A hundred objects put and read side by side are each their own."""
    contents = {f"object {number}": content(number * 100, str(number)) for number in range(100)}
    await asyncio.gather(*(put(server, tenant, key, data) for key, data in contents.items()))
    reads = await asyncio.gather(*(get(server, tenant, key) for key in contents))
    assert [read.data for read in reads] == list(contents.values())
    assert server.unfinished() == []
