"""Resumable Puts through a real channel, on the local store and on S3: nothing that was persisted is sent twice."""

import pytest

from rpc.interrupted import PART, begin, interrupted, resume
from rpc.wire import MIB, content, get
from servers.in_process import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(3 * PART + MIB // 2)


async def test_progress_begins_at_zero_and_the_result_comes_last(server: Server, tenant: str) -> None:
    """The first token comes before any chunk is sent; later ones name whole parts, never less than before."""
    stream = await begin(server, tenant, size=len(DATA))
    first = await stream.told()
    assert first.persisted_size == 0
    await stream.send(DATA)
    info = await stream.end(len(DATA))
    sizes = [each.persisted_size for each in stream.progress]
    assert sizes == sorted(set(sizes))
    assert all(size % PART == 0 for size in sizes)
    assert info.size == len(DATA)
    assert (await get(server, tenant, "key")).data == DATA
    assert server.unfinished() == []


@pytest.mark.parametrize("persisted", [0, PART, 3 * PART])
async def test_a_cut_put_is_continued(server: Server, tenant: str, persisted: int) -> None:
    """From its last token, with the rest of the bytes alone."""
    cut = await interrupted(server, tenant, DATA, persisted)
    last = cut.progress[-1]
    stream = await resume(server, cut, last.resume_token)
    assert (await stream.told()).persisted_size == last.persisted_size
    await stream.send(DATA, last.persisted_size)
    await stream.end(len(DATA))
    assert (await get(server, tenant, "key")).data == DATA
    assert server.unfinished() == []
