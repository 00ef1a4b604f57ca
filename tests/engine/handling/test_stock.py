"""How many rows are claimed ahead, and how they get to the workers."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._engine.handling.stock import BATCHES_AHEAD, MOST_BYTES, Stock
from tests.engine.fakes import until
from tests.rows import make_row


def rows(count: int, first: int = 1) -> list[Any]:
    return [make_row(number) for number in range(first, first + count)]


async def work(stock: Stock, count: int, seconds: float) -> None:
    for _ in range(count):
        assert await stock.take() is not None
        stock.done(seconds)


async def closed(stock: Stock) -> bool:
    """Whether no more rows are asked for."""
    task = asyncio.create_task(stock.room())
    await asyncio.sleep(0)
    waits = not task.done()
    task.cancel()
    await asyncio.wait([task])
    return waits


async def test_before_anything_is_known_there_is_room_for_the_workers() -> None:
    assert await Stock(4, 10).room() == 4
    assert await Stock(50, 10).room() == 10


async def test_slow_handlers_have_nothing_claimed_ahead() -> None:
    stock = Stock(2, 10)
    stock.add(rows(2))
    await work(stock, 2, seconds=5.0)
    assert await stock.room() == 2
    stock.add(rows(2))
    await stock.take()
    await stock.take()
    assert await closed(stock)


async def test_nothing_more_is_claimed_while_the_rows_at_hand_have_very_many_bytes() -> None:
    stock = Stock(2, 10)
    stock.add(rows(2))
    await work(stock, 2, seconds=0.001)
    half = [make_row(number, payload=bytes(MOST_BYTES // 2)) for number in range(3)]
    stock.add(half[:1])
    assert await stock.room() > 0
    stock.add(half[1:])
    assert await closed(stock)
    await stock.take()
    assert await closed(stock)
    await stock.take()
    assert await stock.room() > 0
    stock.add(half)
    assert await closed(stock)
    stock.empty()
    assert await stock.room() > 0


async def test_a_free_worker_gets_a_row_while_the_others_are_slow() -> None:
    stock = Stock(4, 10)
    stock.add(rows(4))
    for _ in range(4):
        await stock.take()
    assert await closed(stock)
    stock.done(30.0)
    assert await stock.room() == 1


async def test_quick_handlers_have_batches_claimed_ahead() -> None:
    stock = Stock(1, 10)
    stock.add(rows(1))
    await work(stock, 1, seconds=0.001)
    assert await stock.room() == 10


async def test_a_claim_waits_until_half_of_the_stock_is_gone() -> None:
    stock = Stock(1, 10)
    stock.add(rows(1))
    await work(stock, 1, seconds=0.001)
    stock.add(rows(20))
    assert await closed(stock)
    await work(stock, 9, seconds=0.001)
    assert await closed(stock)
    await work(stock, 1, seconds=0.001)
    assert await stock.room() == 10


async def test_a_handler_that_never_waits_lets_a_claim_begin_while_rows_are_left() -> None:
    stock = Stock(1, 10)
    stock.add(rows(1))
    await work(stock, 1, seconds=0.001)
    stock.add(rows(20))
    claim = asyncio.create_task(stock.room())
    await asyncio.sleep(0)
    await work(stock, 11, seconds=0.001)
    assert claim.done()
    assert len(stock.empty()) == 9


async def test_room_is_told_when_a_row_is_done() -> None:
    stock = Stock(1, 1)
    stock.add(rows(1))
    await stock.take()
    waiting = asyncio.create_task(stock.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    stock.done(9.0)
    async with asyncio.timeout(2.5):
        assert await waiting == 1


async def test_room_is_told_when_the_last_row_is_begun_and_a_worker_is_still_free() -> None:
    stock = Stock(3, 10)
    stock.add(rows(2))
    await stock.take()
    waiting = asyncio.create_task(stock.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await stock.take()
    async with asyncio.timeout(2.5):
        assert await waiting == 1


async def test_rows_come_in_order_to_whoever_waits() -> None:
    stock = Stock(3, 10)
    takers = [asyncio.create_task(stock.take()) for _ in range(3)]
    await asyncio.sleep(0)
    stock.add(rows(2))
    await until(lambda: sum(taker.done() for taker in takers) == 2)
    stock.add(rows(1, first=3))
    async with asyncio.timeout(2.5):
        taken = await asyncio.gather(*takers)
    assert sorted(row.id for row in taken if row is not None) == [1, 2, 3]


async def test_a_cancelled_taker_costs_no_row() -> None:
    stock = Stock(2, 10)
    taker = asyncio.create_task(stock.take())
    await asyncio.sleep(0)
    stock.add(rows(1))
    taker.cancel()
    await asyncio.wait([taker])
    assert [row.id for row in stock.empty()] == [1]


async def test_closing_sends_everyone_away_and_keeps_the_rows() -> None:
    stock = Stock(1, 10)
    taker = asyncio.create_task(stock.take())
    await asyncio.sleep(0)
    stock.close()
    async with asyncio.timeout(2.5):
        assert await taker is None
        assert await stock.room() == 0
    stock.add(rows(2))
    assert await stock.take() is None
    assert len(stock.empty()) == 2
    assert stock.empty() == []


async def test_it_can_be_opened_again() -> None:
    stock = Stock(1, 10)
    stock.close()
    stock.open()
    assert await stock.room() == 1
    stock.add(rows(1))
    assert await stock.take() is not None


@given(
    workers=st.integers(1, 20),
    batch_size=st.integers(1, 50),
    steps=st.lists(st.tuples(st.sampled_from(["claim", "take", "done"]), st.sampled_from([0.0001, 0.01, 0.5, 60.0]))),
)
def test_never_more_in_hand_than_allowed_and_never_stuck(
    workers: int, batch_size: int, steps: list[tuple[str, float]]
) -> None:
    stock = Stock(workers, batch_size)
    busy = 0
    for step, seconds in steps:
        room = stock._room()
        in_hand = len(stock._rows) + busy
        assert 0 <= room <= batch_size
        if room:
            assert in_hand + room <= workers + BATCHES_AHEAD * batch_size
        # With nothing in stock and a worker free, rows are always wanted.
        assert room or stock._rows or busy == workers
        if step == "claim" and room:
            stock.add(rows(room))
        elif step == "take" and stock._rows and busy < workers:
            taking = stock.take()
            with pytest.raises(StopIteration):
                taking.send(None)
            busy += 1
        elif step == "done" and busy:
            stock.done(seconds)
            busy -= 1
