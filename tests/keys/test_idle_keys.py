"""Plaintext data keys that no lease lets anybody use are not kept in memory."""

import asyncio
import gc
import time
import weakref
from collections import OrderedDict

from keys.world import World
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import DataKey

# By the world's clock, which stands still. The loop's, which wakes the timers, does not.
BOUND = 1 / 16
POLICY = LeasePolicy(refresh=1 / 32, bound=BOUND)
TIMEOUT = 60


def kept(wrapped: bytes) -> bool:
    """Whether anything in this process still holds that data key with its plaintext."""
    gc.collect()
    return any(
        (isinstance(each, DataKey) and each.wrapped == wrapped) or (type(each) is OrderedDict and wrapped in each)
        for each in gc.get_objects()
    )


async def until_gone(wrapped: bytes) -> None:
    """Wait for what must come, but not for ever."""
    deadline = time.monotonic() + TIMEOUT
    while kept(wrapped):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_idle_tenants_keys_are_dropped_once_their_leases_are_over(world: World) -> None:
    """Those for sealing and those for opening, with nobody asking; a later use asks KMS and works."""
    keys = world.data_keys(POLICY)
    sealing = bytes((await keys.for_sealing(world.acme)).data_key.wrapped)
    opening = bytes((await keys.for_sealing(world.globex)).data_key.wrapped)
    await keys.for_opening(world.globex, opening)
    assert kept(sealing)
    assert kept(opening)
    world.clock.advance(BOUND)
    await until_gone(sealing)
    await until_gone(opening)
    assert (await keys.for_opening(world.globex, opening)).confirmed()
    await keys.aclose()


async def test_a_key_whose_lease_was_renewed_is_kept(world: World) -> None:
    """The timer of the first lease finds the second, and waits for its end."""
    keys = world.data_keys(POLICY)
    wrapped = bytes((await keys.for_sealing(world.acme)).data_key.wrapped)
    await keys.for_opening(world.acme, wrapped)
    world.clock.advance(BOUND)
    await keys.for_opening(world.acme, wrapped)
    sealing = bytes((await keys.for_sealing(world.globex)).data_key.wrapped)
    asked = world.gate.unwrapped
    for _ in range(3):
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(2 * BOUND, later.set)  # timers run in order: after that of the lease
        await later.wait()
        await keys.for_opening(world.acme, wrapped)
    assert world.gate.unwrapped == asked
    assert kept(sealing)
    await keys.aclose()


async def test_closing_leaves_no_timer(world: World) -> None:
    """Nothing in the loop refers to what was closed, long before the lease would have been over."""
    keys = world.data_keys(LeasePolicy(bound=10 * TIMEOUT))
    await keys.for_sealing(world.acme)
    closed = weakref.ref(keys)
    await keys.aclose()
    del keys
    deadline = time.monotonic() + TIMEOUT
    while closed() is not None:  # the thread that has just made the data key may hold it for a moment
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        gc.collect()
