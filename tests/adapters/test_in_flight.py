"""How many parts of one upload may be on their way at once."""

import asyncio

import pytest

from keystow_service.adapters.in_flight import InFlight

MIB = 1 << 20


async def has_room(in_flight: InFlight) -> bool:
    """Whether ``room`` returns while nothing moves."""
    waiting = asyncio.ensure_future(in_flight.room())
    await asyncio.sleep(0)
    room = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return room


@pytest.mark.parametrize(
    ("size", "at_once"), [(1, 4), (8 * MIB + 256, 4), (16 * MIB, 2), (64 * MIB, 2), (128 * MIB, 2)]
)
async def test_large_parts_are_fewer_at_once(size: int, at_once: int) -> None:
    """Never more bytes than the limit of usual parts, save that one is filled while one is sent."""
    in_flight = InFlight(4)
    for number in range(at_once):
        assert await has_room(in_flight)
        in_flight.add(number, asyncio.get_running_loop().create_future(), size)
    assert not await has_room(in_flight)
    in_flight.cancel()
    await in_flight.ended()
    assert await has_room(in_flight)
