"""What only the synchronous client promises: the caller's things stay in the caller's thread, and it can be stopped."""

import asyncio
import contextvars
import platform
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.conftest import FAST
from client.content import names, noise
from client.scripted import MIB, Context, ScriptedServer, get_responses
from keystow.v1 import storage_pb2 as pb
from keystow_client import AsyncClient, Client, KeystowError, OwnThread

BIG = noise(3 * MIB + 7)


def test_iterators_run_in_the_calling_thread(sync_client: Client, server: ScriptedServer) -> None:
    """A generator over a database cursor, which refuses other threads, is a source."""
    database = sqlite3.connect(":memory:")
    database.execute("create table rows (data blob)")
    database.executemany(
        "insert into rows values (?)", [(BIG[start : start + 1000],) for start in range(0, 9000, 1000)]
    )
    sync_client.put("acme", "k", (data for (data,) in database.execute("select data from rows")))
    database.close()
    assert server.storage.objects["acme", "k"].data == BIG[:9000]


def test_callbacks_and_files_run_in_the_calling_thread(sync_client: Client) -> None:
    """So do progress callbacks, and files that are read or written."""
    threads = set()

    class Noticing:
        def write(self, data: bytes | memoryview) -> int:
            threads.add(threading.current_thread())
            return len(data)

    sync_client.put("acme", "k", BIG, progress=lambda _: threads.add(threading.current_thread()))
    sync_client.get("acme", "k", Noticing(), progress=lambda _: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_the_callers_context_is_seen(sync_client: Client) -> None:
    """Context variables hold inside sources, on both clients."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    seen = []

    def source() -> Iterator[bytes]:
        seen.append(variable.get())
        yield b"data"

    variable.set("here")
    sync_client.put("acme", "k", source())
    assert seen == ["here"]


def test_a_callback_may_use_the_client(sync_client: Client) -> None:
    """Calls may be nested: the calling thread serves the inner one first."""
    sync_client.put("acme", "known", b"1234")
    sizes = []
    sync_client.put("acme", "k", BIG, progress=lambda _: sizes.append(sync_client.stat("acme", "known").size))
    assert sizes == [4] * 4


@pytest.mark.parametrize("failure", [ValueError("enough"), KeyboardInterrupt()])
def test_a_callback_that_raises_ends_the_transfer(
    sync_client: Client, server: ScriptedServer, failure: BaseException
) -> None:
    """What progress raises reaches the caller, nothing is stored, and the client stays usable."""

    def progress(_: int) -> None:
        raise failure

    with pytest.raises(type(failure)):
        sync_client.put("acme", "k", iter([BIG[:MIB], BIG[MIB:]]), progress=progress)
    sync_client.put("acme", "other", b"data")
    assert [key for _, key in server.storage.objects] == ["other"]


def test_an_interrupted_source_stores_nothing(sync_client: Client, server: ScriptedServer) -> None:
    """Ctrl-C while the source is read ends the Put on the server too."""
    ended = threading.Event()

    async def step(_: object, context: Context) -> None:
        try:
            await server.storage.put(None, context)
        finally:
            ended.set()

    def source() -> Iterator[bytes]:
        yield BIG
        raise KeyboardInterrupt

    server.storage.next("Put", step)
    with pytest.raises(KeyboardInterrupt):
        sync_client.put("acme", "k", source())
    assert ended.wait(30)
    assert not server.storage.objects
    assert sync_client.server_info().version == "1.2.3"


def test_an_interrupted_download_leaves_no_file(sync_client: Client, server: ScriptedServer, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a Get removes the temporary file before it is heard of."""
    sync_client.put("acme", "k", BIG)

    def progress(_: int) -> None:
        assert len(names(tmp_path)) == 1
        raise KeyboardInterrupt

    async def step(request: pb.GetRequest, context: Context) -> None:
        for response in get_responses(server.storage.objects["acme", "k"], request)[:2]:
            await context.write(response)
        await asyncio.Event().wait()

    server.storage.next("Get", step)
    with pytest.raises(KeyboardInterrupt):
        sync_client.get("acme", "k", tmp_path / "dest", progress=progress)
    assert names(tmp_path) == []


def test_threads_share_a_client(sync_client: Client) -> None:
    """Transfers of several threads run side by side, each with its own source."""

    def transfer(number: int) -> bool:
        sync_client.put("acme", f"k{number}", iter([BIG[number:]]))
        with sync_client.get("acme", f"k{number}") as download:
            return b"".join(download) == BIG[number:]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(transfer, range(24)))


def test_a_download_can_be_left_early(sync_client: Client, server: ScriptedServer) -> None:
    """Leaving the context ends the call on the server."""
    sync_client.put("acme", "k", BIG * 20)
    ended = threading.Event()

    async def step(request: pb.GetRequest, context: Context) -> None:
        try:
            await server.storage.get(request, context)
        finally:
            ended.set()

    server.storage.next("Get", step)
    with sync_client.get("acme", "k") as download:
        next(download)
    assert ended.wait(30)


async def test_it_works_beside_a_running_loop(server: ScriptedServer) -> None:
    """Code that is called from a coroutine may use it, though it blocks that coroutine's loop."""
    with Client(server.address, retry=FAST) as client:
        client.put("acme", "k", BIG)
        assert client.stat("acme", "k").size == len(BIG)


def test_lists_go_through_all_pages(sync_client: Client, server: ScriptedServer) -> None:
    """Objects and tenants, page after page."""
    server.storage.page_size = 2
    for number in range(5):
        server.storage.add(f"k{number}", b"data")
    assert [info.key for info in sync_client.list("acme")] == [f"k{number}" for number in range(5)]
    assert len(server.storage.requests["List"]) == 3
    with pytest.raises(KeystowError):
        sync_client.get_tenant("acme")
    assert list(sync_client.list_tenants()) == []


def test_a_client_that_is_not_open_says_so() -> None:
    """Before and after its context."""
    client = Client("127.0.0.1:1")
    with pytest.raises(RuntimeError, match="context manager"):
        client.server_info()
    with client:
        pass
    with pytest.raises(RuntimeError, match="context manager"):
        client.server_info()


def test_no_threads_are_left(server: ScriptedServer) -> None:
    """Closing a client ends its loop's thread, and a transfer's thread ends with it."""
    with Client(server.address) as client:
        client.put("acme", "k", BIG)
    assert not [thread for thread in threading.enumerate() if thread.name == "keystow-client"]


async def test_a_thread_of_its_own_ends(server: ScriptedServer) -> None:
    """An asynchronous transfer's thread is gone soon after it, and one that was never needed is never started."""
    before = threading.active_count()
    with OwnThread() as thread:
        pass
    assert threading.active_count() == before
    with OwnThread() as thread:
        worker = await thread.run(threading.current_thread)
    worker.join(30)
    assert not worker.is_alive()
    async with AsyncClient(server.address, retry=FAST) as client:
        await client.put("acme", "k", BIG)


def test_the_allocator_is_tuned_on_demand() -> None:
    """tune_allocator takes effect exactly where the C library is glibc."""
    code = "import keystow_client; print(keystow_client.tune_allocator())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
