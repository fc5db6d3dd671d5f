"""With a lease_bound of 0 nothing is proven for later: each use of a data key asks KMS anew."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from keys.test_idle_keys import until_gone
from keys.world import World, settled
from keystow_service.errors import KmsKeyDisabledError, KmsUnavailableError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.lease import LeasePolicy
from servers.gate import Gate

NO_LEASE = LeasePolicy(refresh=0, bound=0)


@pytest.fixture
async def keys(world: World) -> AsyncIterator[DataKeys]:
    keys = world.data_keys(NO_LEASE)
    yield keys
    await keys.aclose()


async def test_each_object_and_each_use_is_one_request(world: World, keys: DataKeys) -> None:
    """GenerateDataKey for each object begun and each segment sealed, Decrypt for each opened; none in between."""
    held = [await keys.for_sealing(world.acme) for _ in range(3)]
    assert len({each.data_key.wrapped for each in held}) == 3
    await held[0].hold()
    await held[0].hold()
    assert (world.gate.generated, world.gate.unwrapped) == (5, 0)
    opened = [await keys.for_opening(world.acme, held[0].data_key.wrapped) for _ in range(3)]
    await opened[0].hold()
    await settled()
    assert (world.gate.generated, world.gate.unwrapped) == (5, 4)
    resumed = await keys.for_resuming(world.acme, held[0].data_key.wrapped)
    await resumed.hold()
    assert (world.gate.generated, world.gate.unwrapped) == (7, 5)


async def test_the_next_use_meets_a_disabled_key(world: World, keys: DataKeys) -> None:
    """And the one after that an enabled one."""
    sealing = await keys.for_sealing(world.acme)
    opening = await keys.for_opening(world.acme, sealing.data_key.wrapped)
    uses: list[Callable[[], Awaitable[object]]] = [
        sealing.hold,
        opening.hold,
        lambda: keys.for_sealing(world.acme),
        lambda: keys.for_opening(world.acme, sealing.data_key.wrapped),
    ]
    for use in uses:
        world.admin.disable(world.arn)
        with pytest.raises(KmsKeyDisabledError):
            await use()
        world.admin.enable(world.arn)
        await use()
    world.gate.lost = KmsUnavailableError("lost")
    for use in uses:
        with pytest.raises(KmsUnavailableError):
            await use()


@pytest.mark.parametrize("direction", ["seal", "open"])
async def test_a_use_is_served_by_a_request_sent_after_it_began(world: World, keys: DataKeys, direction: str) -> None:
    """Those that begin while a request is under way wait for the next, which serves all of them."""
    sealing = await keys.for_sealing(world.acme)
    held = sealing if direction == "seal" else await keys.for_opening(world.acme, sealing.data_key.wrapped)
    world.gate.generated = world.gate.unwrapped = 0
    gate = Gate()
    world.gate.after_answer = gate.wait
    first = asyncio.create_task(held.hold())
    await gate.until(held=1)
    others = [asyncio.create_task(held.hold()) for _ in range(5)]
    await asyncio.sleep(0)  # each runs to where it waits
    world.admin.disable(world.arn)
    gate.open()
    await first
    ends = await asyncio.gather(*others, return_exceptions=True)
    assert {type(end) for end in ends} == {KmsKeyDisabledError}
    assert world.gate.generated + world.gate.unwrapped == 2


@pytest.mark.parametrize("direction", ["seal", "open"])
async def test_an_answer_that_took_too_long_is_none(world: World, keys: DataKeys, direction: str) -> None:
    """The key may have been disabled since KMS gave it, for as long as the service announces and no longer."""
    sealing = await keys.for_sealing(world.acme)
    wrapped = sealing.data_key.wrapped
    opening = await keys.for_opening(world.acme, wrapped)
    uses: list[Callable[[], Awaitable[object]]] = [sealing.hold, lambda: keys.for_sealing(world.acme)]
    if direction == "open":
        uses = [opening.hold, lambda: keys.for_opening(world.acme, wrapped)]

    async def slow() -> None:
        world.clock.advance(took)

    world.gate.after_answer = slow
    for use in uses:
        took = NO_LEASE.revocation_bound - 0.001
        await use()
        took = NO_LEASE.revocation_bound
        with pytest.raises(KmsUnavailableError, match="longer to answer"):
            await use()


async def test_streams_of_many_data_keys_share_requests(world: World, keys: DataKeys) -> None:
    """What KMS unwraps for one object proves the key for all that were waiting when it was sent."""
    wrapped = [(await keys.for_sealing(world.acme)).data_key.wrapped for _ in range(5)]
    streams = [await keys.for_opening(world.acme, each) for each in wrapped]
    world.gate.unwrapped = 0
    await asyncio.gather(*(stream.hold() for stream in streams))
    assert world.gate.unwrapped == 1


async def test_a_data_key_that_is_shared_serves_only_so_many_objects(world: World) -> None:
    """Objects that begin together may get one data key, but no more of them than data_key_max_objects."""
    keys = world.data_keys(LeasePolicy(refresh=0, bound=0, data_key_max_objects=2))
    held = await asyncio.gather(*(keys.for_sealing(world.acme) for _ in range(5)))
    assert len({each.data_key.wrapped for each in held}) == 3
    await keys.aclose()


async def test_nothing_is_cached(world: World, keys: DataKeys) -> None:
    """A plaintext data key is in memory as long as a stream holds it."""
    wrapped = bytes((await keys.for_sealing(world.acme)).data_key.wrapped)
    await keys.for_opening(world.acme, wrapped)
    await until_gone(wrapped)


async def test_a_held_key_is_confirmed_until_a_refusal(world: World, keys: DataKeys) -> None:
    """For what is no use of its own, and asks nobody."""
    held = await keys.for_sealing(world.acme)
    world.clock.advance(100)
    assert held.confirmed()
    world.admin.disable(world.arn)
    with pytest.raises(KmsKeyDisabledError):
        await held.hold()
    assert not held.confirmed()
