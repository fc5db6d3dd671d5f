"""A stream that waits for its client ends with its lease, though it makes no use of its key."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from keys.world import BOUND, REFRESH, World
from keystow_service.acting import Acting, acting
from keystow_service.errors import KmsKeyDisabledError, KmsThrottledError, KmsUnavailableError
from keystow_service.keys.data_keys import DataKeys
from keystow_service.keys.held_key import HeldKey
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import Caller
from servers.gate import Gate

GRACE = 1 / 16  # by the world's clock, which stands still, and by the loop's, which looks after the waits
POLICY = LeasePolicy(REFRESH, BOUND, grace=GRACE, retry_interval=GRACE)
TIMEOUT = 60
NO_LEASE = replace(POLICY, refresh=0, bound=0)


@pytest.fixture
async def keys(world: World) -> AsyncIterator[DataKeys]:
    keys = world.data_keys(POLICY)
    yield keys
    await keys.aclose()


async def waiting(held: HeldKey) -> "asyncio.Task[None]":
    """A stream whose client never does anything."""

    async def wait() -> None:
        with held.waiting():
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def both(world: World, keys: DataKeys) -> list[HeldKey]:
    """A key held for sealing, and one for opening."""
    sealing = await keys.for_sealing(world.acme)
    return [sealing, await keys.for_opening(world.acme, sealing.data_key.wrapped)]


async def asked(world: World) -> None:
    """Until KMS has been asked once more, on behalf of those who wait."""
    before, deadline = world.gate.generated + world.gate.unwrapped, time.monotonic() + TIMEOUT
    while world.gate.generated + world.gate.unwrapped == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def answered(world: World, *tasks: "asyncio.Task[None]") -> None:
    """And until it has answered. ``tasks`` are those who wait."""
    await asked(world)
    if requests := asyncio.all_tasks() - {asyncio.current_task(), *tasks}:
        await asyncio.wait(requests)


async def looked_at(*tasks: "asyncio.Task[None]") -> None:
    """Until the lease of those who wait has been looked after once more: timers run in order."""
    await asyncio.wait(tasks, timeout=GRACE)


async def test_a_refusal_ends_all_waits_at_once(world: World, keys: DataKeys) -> None:
    """Whoever meets it first: those that seal and those that open, of every tenant of the KMS key."""
    held = [*await both(world, keys), await keys.for_sealing(world.globex)]
    tasks = [await waiting(each) for each in held]
    world.admin.disable(world.arn)
    with pytest.raises(KmsKeyDisabledError):
        await keys.for_opening(world.globex, held[2].data_key.wrapped)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [KmsKeyDisabledError] * 3
    assert len({id(end) for end in ends}) == 3


@pytest.mark.parametrize("direction", [0, 1], ids=["seal", "open"])
async def test_one_who_only_waits_learns_that_the_key_is_disabled(world: World, keys: DataKeys, direction: int) -> None:
    """The lease is renewed for it: KMS is asked though nobody uses the key, and its refusal ends the wait."""
    held = (await both(world, keys))[direction]
    task = await waiting(held)
    for _ in range(2):
        world.clock.advance(REFRESH)
        await answered(world, task)
    assert not task.done()
    world.admin.disable(world.arn)
    world.clock.advance(REFRESH)
    with pytest.raises(KmsKeyDisabledError):
        await task


async def test_a_renewal_is_on_behalf_of_one_who_waits(world: World, keys: DataKeys) -> None:
    """Not of one whose call is over: the audit log tells for whom KMS was asked."""
    ends, named = {"alice": asyncio.Event(), "bob": asyncio.Event()}, []

    async def stream(name: str, begun: asyncio.Event) -> None:
        acting.set(Acting(Caller(name), "Put"))
        with (await keys.for_sealing(world.acme)).waiting():
            begun.set()
            await ends[name].wait()

    async def note() -> None:
        named.append(acting.get().caller.principal)

    streams = []
    for name in ends:
        begun = asyncio.Event()
        streams.append(asyncio.create_task(stream(name, begun)))
        await begun.wait()
    ends["alice"].set()
    await streams[0]
    world.gate.after_answer = note
    world.clock.advance(REFRESH)
    await answered(world, streams[1])
    ends["bob"].set()
    await streams[1]
    assert named == ["bob"]


@pytest.mark.parametrize("error", [KmsUnavailableError, KmsThrottledError])
async def test_a_wait_ends_when_the_bound_is_reached_without_renewal(
    world: World, keys: DataKeys, error: type[KmsUnavailableError | KmsThrottledError]
) -> None:
    """An outage is waited out to the bound and its grace, and no longer; the stream ends with what KMS failed with."""
    task = await waiting(await keys.for_sealing(world.acme))
    world.gate.lost = error("lost")
    for seconds in (REFRESH, BOUND - REFRESH - GRACE, GRACE + GRACE / 2):
        world.clock.advance(seconds)
        await answered(world, task)
    assert not task.done()
    world.clock.advance(GRACE / 4)
    with pytest.raises(error):
        await task


async def test_a_wait_ends_though_kms_never_answers(world: World, keys: DataKeys) -> None:
    """A request under way puts nothing off."""
    task = await waiting(await keys.for_sealing(world.acme))
    world.gate.after_answer = Gate().wait
    world.clock.advance(REFRESH)
    await asked(world)
    world.clock.advance(BOUND - REFRESH + GRACE)
    with pytest.raises(KmsUnavailableError, match=f"the {BOUND:g} s for which"):
        await task


async def test_a_renewal_within_the_grace_is_in_time(world: World, keys: DataKeys) -> None:
    """Who waits when KMS answers again waits on."""
    task = await waiting(await keys.for_sealing(world.acme))
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(BOUND - GRACE)
    await answered(world, task)
    world.gate.lost = None
    world.clock.advance(GRACE + GRACE / 2)
    await answered(world, task)
    world.clock.advance(GRACE)
    await looked_at(task)
    assert not task.done()
    task.cancel()


async def test_a_wait_that_begins_after_a_refusal_asks_again(world: World, keys: DataKeys) -> None:
    """It ends if the key is still disabled, and lasts if it is enabled."""
    held = await keys.for_sealing(world.acme)
    for enable in (False, True):
        world.admin.disable(world.arn)
        world.clock.advance(BOUND)
        with pytest.raises(KmsKeyDisabledError):
            await held.hold()
        if enable:
            world.admin.enable(world.arn)
        task = await waiting(held)
        if enable:
            await answered(world, task)
            world.clock.advance(GRACE)
            await looked_at(task)
            assert not task.done()
            task.cancel()
        else:
            with pytest.raises(KmsKeyDisabledError):
                await task


async def test_waits_without_a_lease(world: World) -> None:
    """With a bound of 0 KMS is asked all the while, and its refusal or silence ends the wait."""
    keys = world.data_keys(NO_LEASE)
    held = await keys.for_sealing(world.acme)
    task = await waiting(held)
    for _ in range(3):
        await answered(world, task)
        world.clock.advance(GRACE / 2)
    assert not task.done()
    world.admin.disable(world.arn)
    with pytest.raises(KmsKeyDisabledError):
        await task
    world.admin.enable(world.arn)
    await held.hold()
    task = await waiting(held)
    world.gate.after_answer = Gate().wait
    await asked(world)
    world.clock.advance(NO_LEASE.revocation_bound + GRACE)
    with pytest.raises(KmsUnavailableError, match="the 2 s for which"):
        await task
    await keys.aclose()


async def test_a_slow_kms_ends_no_wait_without_a_lease(world: World) -> None:
    """With a bound of 0, too, an answer counts for as long as it does for a use."""
    keys = world.data_keys(NO_LEASE)
    task = await waiting(await keys.for_sealing(world.acme))
    for _ in range(3):
        gate = Gate()
        world.gate.after_answer = gate.wait
        await gate.until(held=1)
        world.clock.advance(NO_LEASE.revocation_bound / 2)
        await looked_at(task)
        assert not task.done()
        gate.open()
    task.cancel()
    await keys.aclose()


async def test_answers_that_come_too_late_end_a_wait(world: World) -> None:
    """KMS is asked no more often than while it fails, and the stream is told what was the matter."""
    keys = world.data_keys(NO_LEASE)
    task = await waiting(await keys.for_sealing(world.acme))

    async def slow() -> None:
        world.clock.advance(NO_LEASE.revocation_bound)

    world.gate.after_answer = slow
    await answered(world, task)
    asked_so_far = world.gate.generated
    await looked_at(task)
    assert (world.gate.generated, task.done()) == (asked_so_far, False)
    world.clock.advance(GRACE)
    with pytest.raises(KmsUnavailableError, match="longer to answer"):
        await task
    await keys.aclose()


async def test_what_ends_a_wait_otherwise_is_left_alone(world: World, keys: DataKeys) -> None:
    """Its own end, its own failure, a time limit, and a cancellation, even one that comes with the key's error."""
    held = await keys.for_sealing(world.acme)
    with held.waiting():
        pass
    with pytest.raises(ValueError, match="own"), held.waiting():
        raise ValueError("own")
    with pytest.raises(TimeoutError), held.waiting():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    cancelled, both_at_once = await waiting(held), await waiting(held)
    cancelled.cancel()
    both_at_once.cancel()
    world.admin.disable(world.arn)
    with pytest.raises(KmsKeyDisabledError):
        await keys.for_opening(world.acme, held.data_key.wrapped)
    for task in (cancelled, both_at_once):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_nothing_is_looked_after_once_nobody_waits(world: World) -> None:
    """KMS is not asked on behalf of streams that are over, nor of any once the server closes."""
    keys = world.data_keys(POLICY)
    held = await keys.for_sealing(world.acme)
    (await waiting(held)).cancel()
    world.clock.advance(REFRESH)
    await asyncio.sleep(GRACE)  # timers run in order: that of the waits before this one
    assert world.gate.generated == 1
    task = await waiting(held)
    await keys.aclose()
    await looked_at(task)
    assert world.gate.generated == 1
    task.cancel()
