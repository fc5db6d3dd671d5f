"""Whether anybody waits for a request to KMS that was begun for nobody: by a probe, which all others go before."""

import asyncio
from contextvars import ContextVar

# Of the request that the running task makes: set once a backup waits for its answer, too. None where that cannot be.
wanted: ContextVar[asyncio.Event | None] = ContextVar("wanted", default=None)
