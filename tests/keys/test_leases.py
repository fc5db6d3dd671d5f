"""No data key is used longer than ``bound`` after the request that KMS last answered was sent."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import cast

import pytest

from keys.world import BOUND, REFRESH, REGION, World, flipped, settled
from keystow_service.errors import (
    KeystowError,
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsUnavailableError,
    WrappedKeyInvalidError,
)
from keystow_service.keys.held_key import HeldKey
from keystow_service.keys.lease import LeasePolicy
from keystow_service.model import KeyState


async def test_one_data_key_serves_many_objects_while_fresh(world: World) -> None:
    """KMS requests grow with time, not with objects."""
    held = [await world.keys.for_sealing(world.acme) for _ in range(100)]
    assert {each.data_key for each in held} == {held[0].data_key}
    assert world.gate.generated == 1


async def test_a_stale_lease_is_renewed_in_the_background(world: World) -> None:
    """After ``refresh`` the caller is served at once, and one request gets a new data key."""
    first = await world.keys.for_sealing(world.acme)
    world.clock.advance(REFRESH)
    second = await world.keys.for_sealing(world.acme)
    assert second.data_key == first.data_key
    await settled()
    third = await world.keys.for_sealing(world.acme)
    assert third.data_key != first.data_key
    assert world.gate.generated == 2


async def test_a_running_stream_stops_at_the_bound(world: World) -> None:
    """While KMS does not answer a held key works to the bound and not a moment longer."""
    held = await world.keys.for_sealing(world.acme)
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(BOUND - 0.001)
    await held.hold()
    await settled()
    world.clock.advance(0.001)
    with pytest.raises(KmsUnavailableError):
        await held.hold()


async def test_a_held_key_tells_whether_its_lease_lasts(world: World) -> None:
    """``confirmed`` until the bound, which a renewal puts off; no longer once KMS has refused; and never asks KMS."""
    held = await world.keys.for_sealing(world.acme)
    world.clock.advance(REFRESH)
    await held.hold()
    await settled()
    world.clock.advance(BOUND - 1)
    assert held.confirmed()
    world.clock.advance(1)
    assert not held.confirmed()
    await held.hold()
    assert held.confirmed()
    world.admin.disable(world.arn)
    world.clock.advance(REFRESH)
    assert held.confirmed()
    await held.hold()
    await settled()
    assert not held.confirmed()
    assert world.gate.generated == 4


async def test_a_running_stream_goes_on_once_kms_answers_again(world: World) -> None:
    """An outage past the bound is over with the first answer."""
    held = await world.keys.for_sealing(world.acme)
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(BOUND)
    with pytest.raises(KmsUnavailableError):
        await held.hold()
    world.gate.lost = None
    await held.hold()


@pytest.mark.parametrize("direction", ["seal", "open"])
async def test_an_answer_that_took_longer_than_the_bound_is_none(world: World, direction: str) -> None:
    """A bound shorter than a call to KMS fails the call; it never gives out a key whose lease is over already."""
    wrapped = (await world.keys.for_sealing(world.acme)).data_key.wrapped
    keys = world.data_keys()

    async def slow() -> None:
        world.clock.advance(BOUND)

    def ask() -> Awaitable[HeldKey]:
        return keys.for_sealing(world.acme) if direction == "seal" else keys.for_opening(world.acme, wrapped)

    world.gate.after_answer = slow
    with pytest.raises(KmsUnavailableError, match="longer to answer"):
        await ask()
    world.gate.after_answer = None
    held = await ask()
    world.clock.advance(BOUND)
    world.gate.after_answer = slow
    with pytest.raises(KmsUnavailableError, match="longer to answer"):
        await held.hold()
    await keys.aclose()


@pytest.mark.parametrize("direction", ["seal", "open"])
async def test_the_lease_counts_from_the_sending_of_the_request(world: World, direction: str) -> None:
    """KMS proved the key while it answered, which is no later than when the request was sent plus nothing."""
    wrapped = (await world.keys.for_sealing(world.acme)).data_key.wrapped
    keys = world.data_keys()

    async def slow() -> None:
        world.clock.advance(BOUND - 1)

    world.gate.after_answer = slow
    held = await (keys.for_sealing(world.acme) if direction == "seal" else keys.for_opening(world.acme, wrapped))
    world.gate.after_answer = None
    world.gate.lost = KmsUnavailableError("lost")
    await held.hold()
    world.clock.advance(1)
    with pytest.raises(KmsUnavailableError):
        await held.hold()
    await keys.aclose()


async def test_a_refusal_ends_running_streams_and_cached_keys_at_once(world: World) -> None:
    """The renewal that meets a disabled key closes both leases long before their bound."""
    sealing = await world.keys.for_sealing(world.acme)
    opening = await world.keys.for_opening(world.acme, sealing.data_key.wrapped)
    world.admin.disable(world.arn)
    world.clock.advance(REFRESH)
    await sealing.hold()
    await settled()
    for deed in (sealing.hold(), opening.hold(), world.keys.for_opening(world.acme, sealing.data_key.wrapped)):
        with pytest.raises(KmsKeyDisabledError):
            await deed


async def test_enabling_gets_everything_back_at_once(world: World) -> None:
    """A refusal is not remembered: streams, seals and opens work with the next request."""
    held = await world.keys.for_sealing(world.acme)
    world.admin.disable(world.arn)
    world.clock.advance(BOUND)
    with pytest.raises(KmsKeyDisabledError):
        await held.hold()
    world.admin.enable(world.arn)
    await held.hold()
    opened = await world.keys.for_opening(world.acme, held.data_key.wrapped)
    assert opened.data_key == held.data_key


async def test_a_refused_key_ends_the_leases_of_all_its_tenants(world: World) -> None:
    """A disabled key is disabled for everyone, whoever finds out first."""
    acme, globex = await world.keys.for_sealing(world.acme), await world.keys.for_sealing(world.globex)
    world.clock.advance(REFRESH)
    await acme.hold()
    await settled()
    world.admin.disable(world.arn)
    world.clock.advance(REFRESH)
    await acme.hold()
    await settled()
    with pytest.raises(KmsKeyDisabledError):
        await globex.hold()


async def test_access_denied_ends_only_the_operation_it_was_denied_to(world: World) -> None:
    """KMS grants GenerateDataKey and Decrypt apart; the other lease runs on."""
    sealing = await world.keys.for_sealing(world.acme)
    opening = await world.keys.for_opening(world.acme, sealing.data_key.wrapped)
    world.gate.lost = KmsAccessDeniedError("denied")
    world.clock.advance(REFRESH)
    await sealing.hold()
    await settled()
    with pytest.raises(KmsAccessDeniedError):
        await sealing.hold()
    world.clock.advance(BOUND - REFRESH - 1)
    await opening.hold()


async def test_every_refusal_drops_the_cached_keys_of_the_kms_key(world: World) -> None:
    """One that ends a single lease, too: all tenants' data keys under the KMS key are unwrapped anew."""
    sealing = [await world.keys.for_sealing(tenant) for tenant in (world.acme, world.globex)]

    async def open_all() -> int:
        """How many of them KMS unwraps for it."""
        before = world.gate.unwrapped
        for tenant, held in zip((world.acme, world.globex), sealing, strict=True):
            await world.keys.for_opening(tenant, held.data_key.wrapped)
        return world.gate.unwrapped - before

    assert [await open_all(), await open_all()] == [2, 0]
    world.gate.lost = KmsAccessDeniedError("denied")
    world.clock.advance(REFRESH)
    await sealing[0].hold()
    await settled()
    world.gate.lost = None
    assert await open_all() == 2


async def test_a_success_overtaken_by_a_refusal_proves_nothing(world: World) -> None:
    """An answer given before the key was disabled, and received after the refusal, does not reopen the lease."""
    wrapped = (await world.keys.for_sealing(world.acme)).data_key.wrapped
    keys = world.data_keys()
    answered, let_go = asyncio.Event(), asyncio.Event()

    async def hold_up() -> None:
        answered.set()
        await let_go.wait()

    world.gate.after_answer = hold_up
    opening = asyncio.create_task(keys.for_opening(world.acme, wrapped))
    await answered.wait()
    world.gate.after_answer = None
    world.admin.disable(world.arn)
    with pytest.raises(KmsKeyDisabledError):
        await keys.for_sealing(world.acme)
    let_go.set()
    with pytest.raises(KmsKeyDisabledError):
        await opening
    await keys.aclose()


async def test_one_request_serves_all_who_wait(world: World) -> None:
    """Many streams of one tenant start with one GenerateDataKey, and one Decrypt for each distinct data key."""
    held = await asyncio.gather(*(world.keys.for_sealing(world.acme) for _ in range(20)))
    wrapped = held[0].data_key.wrapped
    await asyncio.gather(*(world.keys.for_opening(world.acme, wrapped) for _ in range(20)))
    assert (world.gate.generated, world.gate.unwrapped) == (1, 1)


@pytest.mark.parametrize("first", ["probe", "use"])
async def test_a_probe_and_a_use_share_a_request(world: World, first: str) -> None:
    """Whichever comes first; and the data key stays, for there is somebody who uses it."""
    asking: list[Awaitable[object]] = [world.keys.probe(world.acme), world.keys.for_sealing(world.acme)]
    await asyncio.gather(*(asking if first == "probe" else reversed(asking)))
    await world.keys.for_sealing(world.acme)
    assert world.gate.generated == 1


async def test_each_who_waits_is_told_in_an_exception_of_his_own(world: World) -> None:
    """One that several raise holds the frames of all of them, with what is in these."""
    world.admin.disable(world.arn)
    ends = await asyncio.gather(*(world.keys.for_sealing(world.acme) for _ in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [KmsKeyDisabledError] * 3
    assert len({id(end) for end in ends}) == 3
    assert {str(end) for end in ends} == {str(ends[0])}
    assert world.gate.generated == 1


STREAMS = 20


async def streams_of_many_data_keys(world: World) -> list[HeldKey]:
    """Gets of acme that run at once, each of an object under a data key of its own."""
    keys = world.data_keys(LeasePolicy(REFRESH, BOUND, data_key_max_objects=1))
    wrapped = [(await keys.for_sealing(world.acme)).data_key.wrapped for _ in range(STREAMS)]
    await keys.aclose()
    return [await world.keys.for_opening(world.acme, each) for each in wrapped]


async def test_one_renewal_serves_streams_of_many_data_keys(world: World) -> None:
    """The opening lease is renewed once for the tenant, not once for each data key in use."""
    streams = await streams_of_many_data_keys(world)
    for before_bound in (True, False):
        world.gate.unwrapped = 0
        world.clock.advance(REFRESH if before_bound else BOUND)
        await asyncio.gather(*(each.hold() for each in streams))
        await settled()
        await asyncio.gather(*(each.hold() for each in streams))
        assert world.gate.unwrapped == 1


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "lost"])
async def test_one_failure_is_told_to_all_who_wait(world: World, *, lost: bool) -> None:
    """When KMS refuses or is silent past the bound, every stream ends with that, and KMS is asked once."""
    streams = await streams_of_many_data_keys(world)
    world.clock.advance(BOUND)
    if lost:
        world.gate.lost = KmsUnavailableError("lost")
    else:
        world.admin.disable(world.arn)
    world.gate.unwrapped = 0
    ends = await asyncio.gather(*(each.hold() for each in streams), return_exceptions=True)
    assert {type(each) for each in ends} == {KmsUnavailableError if lost else KmsKeyDisabledError}
    assert world.gate.unwrapped == 1


async def test_waiting_for_a_damaged_data_key_fails_no_stream(world: World) -> None:
    """Who waits for the unwrap of a data key that turns out damaged asks with his own, once for all."""
    streams = await streams_of_many_data_keys(world)
    world.clock.advance(BOUND)
    world.gate.unwrapped = 0
    damaged = world.keys.for_opening(world.acme, flipped(streams[0].data_key.wrapped))
    ends = await asyncio.gather(damaged, *(each.hold() for each in streams), return_exceptions=True)
    assert isinstance(ends[0], WrappedKeyInvalidError)
    assert ends[1:] == [None] * STREAMS
    assert world.gate.unwrapped == 2


async def test_one_who_gives_up_takes_the_answer_from_nobody(world: World) -> None:
    """Cancelling one waiter leaves the shared request to the others."""
    sent, let_go = asyncio.Event(), asyncio.Event()

    async def hold_up() -> None:
        sent.set()
        await let_go.wait()

    world.gate.after_answer = hold_up
    first, second = (asyncio.create_task(world.keys.for_sealing(world.acme)) for _ in range(2))
    await sent.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    let_go.set()
    assert await second
    assert world.gate.generated == 1


async def test_a_damaged_data_key_says_nothing_about_the_key(world: World) -> None:
    """One object's broken wrapped key closes no lease."""
    held = await world.keys.for_sealing(world.acme)
    opening = await world.keys.for_opening(world.acme, held.data_key.wrapped)
    with pytest.raises(WrappedKeyInvalidError):
        await world.keys.for_opening(world.acme, flipped(held.data_key.wrapped))
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(BOUND - 1)
    await opening.hold()


async def test_another_tenants_data_key_does_not_open(world: World) -> None:
    """The encryption context binds a data key to its tenant, cached or not."""
    held = await world.keys.for_sealing(world.acme)
    await world.keys.for_opening(world.acme, held.data_key.wrapped)
    with pytest.raises(WrappedKeyInvalidError):
        await world.keys.for_opening(world.globex, held.data_key.wrapped)


async def test_a_tenant_under_another_kms_key_does_not_find_it_cached(world: World) -> None:
    """As after a registry was restored from a backup of another deployment: the KMS key of the tenant decides."""
    held = await world.keys.for_sealing(world.acme)
    await world.keys.for_opening(world.acme, held.data_key.wrapped)
    moved = replace(world.acme, key_arn=world.admin.create(REGION, tenants=["acme"]).arn)
    with pytest.raises(WrappedKeyInvalidError):
        await world.keys.for_opening(moved, held.data_key.wrapped)


async def test_a_data_key_serves_only_so_many_objects(world: World) -> None:
    """data_key_max_objects bounds what one data key protects."""
    keys = world.data_keys(LeasePolicy(REFRESH, BOUND, data_key_max_objects=3))
    held = [await keys.for_sealing(world.acme) for _ in range(7)]
    assert len({each.data_key for each in held}) == 3
    await keys.aclose()


async def test_failing_renewals_ask_no_more_often_than_the_interval(world: World) -> None:
    """A stream of segments does not turn an outage of KMS into a storm of requests."""
    held = await world.keys.for_sealing(world.acme)
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(REFRESH)
    for _ in range(1000):
        await held.hold()
        await settled()
    assert world.gate.generated == 2


async def test_an_unnamed_failure_is_no_storm_either(world: World) -> None:
    """A renewal that fails as no adapter should is not asked for again at every segment."""
    held = await world.keys.for_sealing(world.acme)
    world.gate.lost = cast("KeystowError", RuntimeError())
    world.clock.advance(REFRESH)
    for _ in range(100):
        await held.hold()
        await settled()
    assert world.gate.generated == 2


async def test_a_damaged_data_key_does_not_put_off_a_renewal(world: World) -> None:
    """The stream beside it has its lease renewed as ever."""
    held = await world.keys.for_sealing(world.acme)
    opening = await world.keys.for_opening(world.acme, held.data_key.wrapped)
    world.clock.advance(REFRESH)
    with pytest.raises(WrappedKeyInvalidError):
        await world.keys.for_opening(world.acme, bytes(len(held.data_key.wrapped)))
    await opening.hold()
    await settled()
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(BOUND - 1)
    await opening.hold()


async def test_health_tells_what_the_last_use_showed(world: World) -> None:
    """Enabled, then disabled since then, then enabled again; an outage changes nothing."""
    assert world.health.get(world.acme.tenant_id) is None
    held = await world.keys.for_sealing(world.acme)
    world.admin.disable(world.arn)
    world.clock.advance(BOUND)
    with pytest.raises(KmsKeyDisabledError):
        await held.hold()
    world.gate.lost = KmsUnavailableError("lost")
    with pytest.raises(KmsUnavailableError):
        await held.hold()
    health = world.health.get(world.acme.tenant_id)
    assert health is not None
    assert (health.newest.state, health.newest.reason) == (KeyState.DISABLED, "KMS_KEY_DISABLED")
    assert health.since_time == health.newest.time == world.clock.now()
    world.gate.lost = None
    world.admin.enable(world.arn)
    await held.hold()
    health = world.health.get(world.acme.tenant_id)
    assert health is not None
    assert (health.newest.state, health.newest.reason) == (KeyState.ENABLED, "")


async def test_plaintext_keys_stay_out_of_representations(world: World) -> None:
    """Neither a data key nor what holds it shows the key to a log or a traceback."""
    held = await world.keys.for_sealing(world.acme)
    shown = repr(held) + repr(held.data_key) + str(held.data_key)
    assert repr(held.data_key.plaintext)[2:-1] not in shown
