"""What the log says of renewals that fail: enough to find the tenant, and no more than that."""

import pytest
from structlog.testing import capture_logs

from keys.world import REFRESH, World, flipped, settled
from keystow_service.errors import KmsAccessDeniedError, KmsUnavailableError, WrappedKeyInvalidError


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
