"""The pool that gives everything back: its bounds, what it keeps, and what it closes."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from faststream_outbox.relay import connections
from faststream_outbox.relay.connections import Budget, FrugalPool


class Driver:
    """Counts what is open."""

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        self.fails = False

    def connect(self) -> "DriverConnection":
        if self.fails:
            raise OSError("no")
        self.open += 1
        self.opened += 1
        return DriverConnection(self)


class DriverConnection:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        self.driver.open -= 1

    terminate = close


@pytest.fixture
def driver() -> Driver:
    return Driver()


def pool_of(driver: Driver, budget: Budget, most: int = 10) -> FrugalPool:
    pool = FrugalPool(driver.connect)
    pool.bound(budget, most)
    return pool


async def taken(pool: FrugalPool) -> Any:
    return await connections.greenlet_spawn(pool.connect)


async def given(connection: Any) -> None:
    await connections.greenlet_spawn(connection.close)


async def test_one_that_was_used_is_used_again(driver: Driver) -> None:
    budget = Budget()
    pool = pool_of(driver, budget)
    for _ in range(3):
        await given(await taken(pool))
    assert (driver.opened, driver.open, budget.open) == (1, 1, 1)


async def test_what_nobody_uses_is_closed_after_a_while(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    budget = Budget()
    one, other = pool_of(driver, budget), pool_of(driver, budget)
    held = await taken(one)
    await given(await taken(other))
    assert [(each.checkedout(), each.checkedin()) for each in (one, other)] == [(1, 0), (0, 1)]
    now[0] += 1.0
    await budget.close_idle(2.0)
    assert driver.open == 2
    now[0] += 1.0
    await budget.close_idle(2.0)
    assert (driver.open, budget.open) == (1, 1)
    await given(held)
    assert [(each.checkedout(), each.checkedin()) for each in (one, other)] == [(0, 1), (0, 0)]
    await connections.greenlet_spawn(one.dispose)
    assert (driver.open, budget.open) == (0, 0)


async def test_each_pool_has_its_bound(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.05)
    pool = pool_of(driver, Budget(), most=2)
    first, _ = await taken(pool), await taken(pool)
    with pytest.raises(PoolTimeoutError, match=r"no connection was free within 0\.05 s"):
        await taken(pool)
    await given(first)
    await taken(pool)
    assert driver.open == 2


async def test_all_pools_have_one_bound_together(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.05)
    budget = Budget(2)
    one, other = pool_of(driver, budget), pool_of(driver, budget)
    first, second = await taken(one), await taken(one)
    with pytest.raises(PoolTimeoutError):
        await taken(other)
    # A copy, as that for the listening connection, counts too.
    with pytest.raises(PoolTimeoutError):
        await taken(other.recreate())
    monkeypatch.setattr(connections, "WAIT_SECONDS", 30.0)
    waiting = asyncio.create_task(taken(other))
    await asyncio.sleep(0.01)
    assert budget.is_wanted
    await given(first)
    await waiting
    # It was not kept, since somebody waited.
    assert (driver.open, driver.opened, budget.open) == (2, 3, 2)
    # One that nobody uses is closed for who needs one.
    await given(second)
    await taken(other)
    assert (driver.open, driver.opened, budget.open) == (2, 4, 2)


async def test_what_cannot_be_opened_holds_no_place(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(1)
    pool = pool_of(driver, budget, most=1)
    driver.fails = True
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            await taken(pool)
    driver.fails = False
    await given(await taken(pool))
    assert budget.open == 1


async def test_one_that_is_broken_is_not_kept(driver: Driver) -> None:
    budget = Budget(1)
    pool = pool_of(driver, budget, most=1)
    broken = await taken(pool)
    await connections.greenlet_spawn(broken.invalidate)
    await given(broken)
    assert budget.open == 0
    await given(await taken(pool))
    assert (driver.opened, budget.open) == (2, 1)


async def test_a_copy_keeps_nothing(driver: Driver) -> None:
    budget = Budget()
    copy = pool_of(driver, budget, most=1).recreate()
    first, second = await taken(copy), await taken(copy)
    await given(first)
    await given(second)
    assert (driver.open, budget.open) == (0, 0)


async def test_who_gives_up_waiting_takes_no_place(driver: Driver) -> None:
    budget = Budget(1)
    pool = pool_of(driver, budget)
    held = await taken(pool)
    waiting = asyncio.create_task(taken(pool))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not budget.is_wanted
    await given(held)
    await taken(pool)
    assert budget.open == 1
