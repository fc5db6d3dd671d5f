"""Calls whose request does not come: they count from their beginning, and are not waited for without end."""

from pathlib import Path
from typing import Any

import pytest

from rpc.wire import PATHS, TIMEOUT, failure
from servers.in_process import Server, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")


def begun(server: Server, method: str) -> Any:
    """A call of which nothing has been sent but that it is one."""
    call: Any = server.channel.stream_stream(PATHS[method])
    return call(timeout=TIMEOUT)


async def test_a_request_that_does_not_come(tmp_path: Path) -> None:
    """Every RPC ends with its reason after the stall timeout, those of one request too."""
    async with serving(tmp_path, stall_timeout=0.5) as server:
        calls = {method: begun(server, method) for method in PATHS}
        assert {method: (await failure(call.read())).reason for method, call in calls.items()} == dict.fromkeys(
            PATHS, "STREAM_STALLED"
        )


async def test_a_call_counts_before_its_request_is_there(tmp_path: Path) -> None:
    """What such calls hold in memory is bounded as for all others: beyond max_calls they are refused."""
    async with serving(tmp_path, max_calls=4) as server:
        held = [begun(server, "Stat") for _ in range(4)]
        told = await failure(begun(server, "Stat").read())
        assert (told.reason, told.recovery) == ("OVERLOADED", "retry")
        for call in held:
            call.cancel()
