"""Running the KMS: a server on a free loopback port for each region, in the test's own event loop."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from keystow_service.ports import Clock
from servers.kms.service import FaithfulKms
from servers.kms.wire import converse
from servers.listener import listening


@asynccontextmanager
async def faithful_kms(*regions: str, clock: Clock | None = None) -> AsyncIterator[FaithfulKms]:
    """Without keys. Of one region, us-east-1, unless others are named."""
    kms = FaithfulKms(clock)
    async with AsyncExitStack() as stack:
        for region in regions or ("us-east-1",):
            port = await stack.enter_async_context(listening(partial(converse, kms, region)))
            kms.endpoints[region] = f"http://127.0.0.1:{port}"
        yield kms
