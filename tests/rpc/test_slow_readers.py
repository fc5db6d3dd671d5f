"""Clients that do not read: their streams end with their key's lease, and are reset rather than kept in memory.

What is waited for here is what the server does by itself, within its own grace of a second.
"""

import asyncio
import gc
import inspect
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from keystow.v1 import storage_pb2_grpc
from keystow.v1.storage_pb2 import GetRequest, ListRequest
from keystow_service.rpc.call import Call as UnderWay
from rpc.customer import TENANT, Customer, customer_of_a_server
from rpc.exports import request
from rpc.wire import MIB, TIMEOUT, content, failure, get, put, received, until
from servers.in_process import NARROW_WINDOW, Server, connected, register, serving
from servers.kms.server import faithful_kms
from servers.on_kms import serving_on_kms

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = content(4 * MIB)
LEASES = {"lease_refresh": 0.1, "lease_bound": 2.0}

Call = Any  # of a channel; its responses differ
Open = Callable[["storage_pb2_grpc.StorageServiceAsyncStub"], Call]

STREAMS: dict[str, Open] = {
    "Get": lambda storage: storage.Get(GetRequest(tenant_id=TENANT, key="key"), timeout=TIMEOUT),
    "Export": lambda storage: storage.Export(request(TENANT), timeout=TIMEOUT),
}


def under_way() -> int:
    """Calls that grpc.aio, in this process, holds on to."""
    return sum(getattr(task.get_coro(), "__name__", "") == "_schedule_rpc_coro" for task in asyncio.all_tasks())


def stuck(method: str) -> bool:
    """Whether a call of a server in this process sends a chunk that is larger than its client takes."""
    before = tarfile.BLOCKSIZE if method == "Export" else 0  # a chunk that it does take
    things = gc.get_objects()
    calls = [each for each in things if isinstance(each, UnderWay) and each.method == method]
    return any(call.last_plaintext is not None and call.bytes_out == before for call in calls) and any(
        inspect.iscoroutine(each) and each.__name__ == "_hand_out" for each in things
    )


@asynccontextmanager
async def unread(server: Server, method: str) -> AsyncIterator[Call]:
    """A stream that its client leaves unread; in the block a chunk has been handed out that cannot all be sent."""
    async with connected(server.address, NARROW_WINDOW) as channel:
        call = STREAMS[method](storage_pb2_grpc.StorageServiceStub(channel))
        await until(lambda: stuck(method))
        yield call


async def reset(server: Server, call: Call) -> None:
    """Once the server has let go of the call, the client is told, and has not got what was on its way."""
    await until(lambda: under_way() == 0)
    await server.storage.List(ListRequest(tenant_id=TENANT))  # grpc.aio keeps the newest call until the next one
    plaintext = bytearray()
    told = await failure(received(aiter(call), plaintext))
    assert len(plaintext) < MIB
    assert (told.code, told.reason) == (grpc.StatusCode.CANCELLED, "")


@pytest_asyncio.fixture(loop_scope="session")
async def customer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Customer]:
    """With an object stored."""
    async with customer_of_a_server(tmp_path_factory.mktemp("data"), **LEASES) as customer:
        await put(customer.server, TENANT, "key", DATA)
        yield customer


@pytest.mark.parametrize("method", STREAMS)
async def test_a_reader_that_stalls_under_a_disabled_key(customer: Customer, method: str) -> None:
    """Long before the stall timeout: nobody else uses the key, and the stream ends by its state and is reset."""
    with capture_logs() as log:
        async with unread(customer.server, method) as call:
            customer.keyring.disable(customer.arn)
            await until(lambda: any(entry["event"] == "rpc" for entry in log))
            await reset(customer.server, call)
    told = [(entry["method"], entry["reason"]) for entry in log if entry["event"] == "rpc"]
    assert told == [(method, "KMS_KEY_DISABLED"), ("List", "")]
    customer.keyring.enable(customer.arn)
    assert (await get(customer.server, TENANT, "key")).data == DATA


async def test_a_reader_that_comes_back_in_time_is_told(customer: Customer) -> None:
    """What was handed out under the lease arrives, and then the key's error in full."""
    with capture_logs() as log:
        async with unread(customer.server, "Get") as call:
            customer.keyring.disable(customer.arn)
            await until(lambda: any(entry["event"] == "rpc" for entry in log))
            plaintext = bytearray()
            told = await failure(received(aiter(call), plaintext))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_DISABLED")
    assert plaintext == DATA[:MIB]
    customer.keyring.enable(customer.arn)


async def test_a_reader_that_stalls_while_kms_is_silent(tmp_path: Path) -> None:
    """At the bound without renewal, although KMS has not refused, nor answered the request that was to renew."""
    async with faithful_kms() as kms, serving_on_kms(kms, tmp_path, **LEASES) as server:
        await register(server, TENANT)
        await put(server, TENANT, "key", DATA)
        with capture_logs() as log:
            async with unread(server, "Get") as call:
                gate = kms.faults.hold()
                await until(lambda: any(entry["event"] == "rpc" for entry in log))
                await reset(server, call)
            gate.open()
        [told, _] = [entry for entry in log if entry["event"] == "rpc"]
        assert (told["method"], told["reason"]) == ("Get", "KMS_UNAVAILABLE")


async def test_readers_that_stall_take_no_calls_from_others(tmp_path: Path) -> None:
    """After the stall timeout their calls are reset, and count no longer, though their clients are still there."""
    async with serving(tmp_path, stall_timeout=0.5, max_calls=2) as server:
        await register(server, TENANT)
        await put(server, TENANT, "key", DATA)
        async with unread(server, "Get"), unread(server, "Export"):
            await until(lambda: under_way() == 0)
            await server.storage.List(ListRequest(tenant_id=TENANT))
