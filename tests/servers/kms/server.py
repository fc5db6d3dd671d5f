"""Running the KMS: a server for each region, on a loopback port, in the test's own event loop."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from keystow_service.ports import Clock
from servers.kms.service import FaithfulKms
from servers.kms.wire import converse
from servers.listener import listening

DEFAULT_REGION = "us-east-1"


@asynccontextmanager
async def faithful_kms(*regions: str, clock: Clock | None = None) -> AsyncIterator[FaithfulKms]:
    """Without keys, on free ports. Of one region, unless several are named."""
    async with serving(dict.fromkeys(regions or (DEFAULT_REGION,), 0), clock) as kms:
        yield kms


@asynccontextmanager
async def serving(ports: Mapping[str, int], clock: Clock | None = None) -> AsyncIterator[FaithfulKms]:
    """By region; 0 is a free port."""
    kms = FaithfulKms(clock)
    async with AsyncExitStack() as stack:
        for region, port in ports.items():
            server = _RegionServer(kms, region, port)
            stack.push_async_callback(server.stop)
            await server.start()
            kms.servers[region] = server
        yield kms


class _RegionServer:
    """That can be stopped, so that connections are refused, and started again on its port."""

    def __init__(self, kms: FaithfulKms, region: str, port: int) -> None:
        self._kms = kms
        self._region = region
        self._port = port
        self._running = AsyncExitStack()

    async def start(self) -> None:
        conversation = partial(converse, self._kms, self._region)
        self._port = await self._running.enter_async_context(listening(conversation, port=self._port))
        self._kms.endpoints[self._region] = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Connections that stand are broken."""
        await self._running.aclose()
