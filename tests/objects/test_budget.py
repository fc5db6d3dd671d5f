"""The budget of buffer bytes: who waits, who is refused, and that nothing of it is lost."""

import asyncio

import pytest

from keystow_service.errors import OverloadedError
from keystow_service.objects.budget import BufferBudget

LIMIT = 100


async def hold(budget: BufferBudget, size: int, let_go: asyncio.Event, admitted: list[int]) -> None:
    async with budget.reserve(size):
        admitted.append(size)
        await let_go.wait()


async def waiting(budget: BufferBudget, size: int, admitted: list[int]) -> "tuple[asyncio.Task[None], asyncio.Event]":
    """A stream that has asked for its share; it holds it until the event."""
    let_go = asyncio.Event()
    task = asyncio.create_task(hold(budget, size, let_go, admitted))
    await asyncio.sleep(0)
    return task, let_go


async def test_streams_are_admitted_in_order() -> None:
    """One that does not fit waits, and a smaller one behind it does not overtake."""
    budget, admitted = BufferBudget(LIMIT, admission_timeout=60), list[int]()
    first, first_done = await waiting(budget, 60, admitted)
    second, second_done = await waiting(budget, 50, admitted)
    third, third_done = await waiting(budget, 10, admitted)
    assert admitted == [60]
    first_done.set()
    await first
    await asyncio.sleep(0)
    assert admitted == [60, 50, 10]
    second_done.set()
    third_done.set()
    await asyncio.gather(second, third)


async def test_one_larger_than_the_budget_runs_alone() -> None:
    """It takes all there is."""
    budget, admitted = BufferBudget(LIMIT, admission_timeout=60), list[int]()
    large, large_done = await waiting(budget, 10 * LIMIT, admitted)
    other, other_done = await waiting(budget, 1, admitted)
    assert admitted == [10 * LIMIT]
    large_done.set()
    other_done.set()
    await asyncio.gather(large, other)
    assert admitted == [10 * LIMIT, 1]


async def test_waiting_too_long_is_refused_and_takes_nothing() -> None:
    """OVERLOADED, and the next one gets all that is free."""
    budget = BufferBudget(LIMIT, admission_timeout=0)
    async with budget.reserve(LIMIT):
        with pytest.raises(OverloadedError):
            async with budget.reserve(1):
                raise AssertionError
    async with budget.reserve(LIMIT):
        pass


async def test_those_who_wait_are_bounded_too() -> None:
    """What waits for the budget has its message in memory: past the limit it is refused at once."""
    budget, admitted = BufferBudget(LIMIT, admission_timeout=60), list[int]()
    holder, done = await waiting(budget, LIMIT, admitted)
    queue = [await waiting(budget, 60, admitted) for _ in range(2)]
    with pytest.raises(OverloadedError):
        async with budget.reserve(60):
            raise AssertionError
    for event in (done, *(event for _, event in queue)):
        event.set()
    await asyncio.gather(holder, *(task for task, _ in queue))


async def test_one_who_gives_up_waiting_takes_nothing() -> None:
    """Cancelled in the queue, it leaves its place to those behind."""
    budget, admitted = BufferBudget(LIMIT, admission_timeout=60), list[int]()
    holder, done = await waiting(budget, 60, admitted)
    quitter, _ = await waiting(budget, 90, admitted)
    patient, patient_done = await waiting(budget, 40, admitted)
    quitter.cancel()
    await asyncio.gather(quitter, return_exceptions=True)
    await asyncio.sleep(0)
    assert admitted == [60, 40]
    done.set()
    patient_done.set()
    await asyncio.gather(holder, patient)


async def test_growing_past_the_limit_makes_the_next_one_wait() -> None:
    """A stream that must grow never waits while it holds; shrinking lets others in."""
    budget, admitted = BufferBudget(LIMIT, admission_timeout=60), list[int]()
    async with budget.reserve(50) as reservation:
        reservation.resize(150)
        other, done = await waiting(budget, 10, admitted)
        assert admitted == []
        reservation.resize(90)
        await asyncio.sleep(0)
        assert admitted == [10]
        done.set()
        await other
    async with budget.reserve(LIMIT):
        pass


async def test_a_client_cannot_make_a_stream_grow_without_end() -> None:
    """At twice the limit growing is refused; the stream holds what it held, and gives all of it back."""
    budget = BufferBudget(LIMIT, admission_timeout=0)
    async with budget.reserve(LIMIT) as reservation:
        reservation.grow(2 * LIMIT)
        with pytest.raises(OverloadedError):
            reservation.grow(2 * LIMIT + 1)
        reservation.grow(LIMIT // 2)
        async with budget.reserve(LIMIT // 2):
            pass
    async with budget.reserve(LIMIT):
        pass
