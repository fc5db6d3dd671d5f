"""What the log says of renewals that fail: enough to find the tenant, and no more than that."""

import asyncio

import pytest
from structlog.testing import capture_logs

from keys.world import REFRESH, World, flipped, settled
from keystow_service.errors import (
    KmsAccessDeniedError,
    KmsKeyDisabledError,
    KmsUnavailableError,
    WrappedKeyInvalidError,
)
from keystow_service.keys.sending import on_refusal
from servers.gate import Gate


async def test_failing_renewals_are_told_once_in_a_while_by_tenant(world: World) -> None:
    """The log says whose key does not answer and why: at once, then at most once a minute while nothing changes."""
    held = await world.keys.for_sealing(world.acme)
    world.gate.lost = KmsUnavailableError("lost")
    world.clock.advance(REFRESH)
    with capture_logs() as log:
        for _ in range(10):
            await held.hold()
            await settled()
            world.clock.advance(2)
        world.clock.advance(60)
        for _ in range(2):
            with pytest.raises(KmsUnavailableError):
                await held.hold()
        world.gate.lost = KmsAccessDeniedError("denied")
        with pytest.raises(KmsAccessDeniedError):
            await held.hold()
    told = [entry for entry in log if entry["event"] == "kms_request_failed"]
    assert [(entry["tenant_id"], entry["reason"]) for entry in told] == [
        ("acme", "KMS_UNAVAILABLE"),
        ("acme", "KMS_UNAVAILABLE"),
        ("acme", "KMS_ACCESS_DENIED"),
    ]


async def test_a_damaged_data_key_is_no_failing_renewal(world: World) -> None:
    """Whoever reads the object is told; the operator is not woken for a KMS that works."""
    held = await world.keys.for_sealing(world.acme)
    with capture_logs() as log, pytest.raises(WrappedKeyInvalidError):
        await world.keys.for_opening(world.acme, flipped(held.data_key.wrapped))
    assert log == []


async def test_a_refused_probe_is_no_failing_renewal(world: World) -> None:
    """Nor where a backup asks KMS anew while the refusal is looked into."""
    gate = Gate()

    async def refuse() -> None:
        refusal = KmsKeyDisabledError("refused")
        on_refusal.get()(refusal)
        await gate.wait()
        raise refusal

    world.gate.after_answer = refuse
    with capture_logs() as log:
        probe = asyncio.create_task(world.keys.probe(world.acme))
        await gate.until(held=1)
        world.gate.after_answer = None
        await world.keys.for_sealing(world.acme)
        gate.open()
        with pytest.raises(KmsKeyDisabledError):
            await probe
    assert log == []


async def test_closing_gives_up_what_looks_into_a_refusal(world: World) -> None:
    """For sealing and for opening: nothing is asked any more of a service that is closed."""
    wrapped = (await world.keys.for_sealing(world.acme)).data_key.wrapped
    keys, gate = world.data_keys(), Gate()

    async def refuse() -> None:
        on_refusal.get()(KmsKeyDisabledError("refused"))
        await gate.wait()

    world.gate.after_answer = refuse
    uses = [keys.for_sealing(world.acme), keys.for_opening(world.acme, wrapped)]
    tasks = [asyncio.create_task(use) for use in uses]
    await gate.until(held=2)
    await keys.aclose()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
