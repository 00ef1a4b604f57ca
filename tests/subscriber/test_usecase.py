"""What a subscriber says of a row, without a store behind it."""

import asyncio
from typing import Any

import pytest
from faststream.exceptions import StopConsume

from faststream_outbox import NoRetry, OutboxBroker
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry
from faststream_outbox._values.unreadable import Unreadable
from faststream_outbox.subscriber.usecase import OutboxSubscriber
from tests.rows import make_row

ROW = make_row(7, idempotency_key="i", payload=b"7")


@pytest.fixture
async def subscriber(broker: OutboxBroker) -> OutboxSubscriber:
    """Its handler raises what `raises` holds."""
    subscriber = broker.subscriber("orders", max_deliveries=2)

    @subscriber
    async def handle(body: int) -> None:
        for error in subscriber.raises:  # type: ignore[attr-defined]
            raise error

    subscriber.raises = []  # type: ignore[attr-defined]
    await broker.start()
    return subscriber


class NotAnException(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Delivered),
        (ValueError("x"), Retry),
        (asyncio.CancelledError(), Retry),
        (NotAnException(), Retry),
        (SystemExit(), Retry),
        (StopConsume(), Retry),
    ],
)
async def test_whatever_a_handler_raises_is_an_outcome(
    subscriber: OutboxSubscriber, error: BaseException | None, expected: type[Outcome]
) -> None:
    subscriber.raises = [] if error is None else [error]  # type: ignore[attr-defined]
    assert isinstance(await subscriber.execute(ROW), expected)


async def test_a_row_that_came_too_often_is_dead_before_the_handler(subscriber: OutboxSubscriber) -> None:
    assert isinstance(await subscriber.execute(ROW._replace(deliveries_count=2)), Delivered)
    assert await subscriber.execute(ROW._replace(deliveries_count=3)) == Dead("max_deliveries", "claimed 3 times")


async def test_a_row_that_cannot_be_read_is_dead_before_the_handler(subscriber: OutboxSubscriber) -> None:
    subscriber.raises = [AssertionError("was begun")]  # type: ignore[attr-defined]
    outcome = await subscriber.execute(ROW._replace(headers=Unreadable("they are null")))
    assert outcome == Dead("invalid", "the headers cannot be read: they are null")


async def test_after_a_request_to_stop_rows_that_were_claimed_before_are_given_back(
    subscriber: OutboxSubscriber,
) -> None:
    subscriber.raises = [StopConsume()]  # type: ignore[attr-defined]
    await subscriber.execute(ROW)
    subscriber.raises = [AssertionError("was begun")]  # type: ignore[attr-defined]
    assert await subscriber.execute(ROW) == Released(started=False)
    await subscriber.stop()
    subscriber.raises = []  # type: ignore[attr-defined]
    await subscriber.start()
    assert await subscriber.execute(ROW) == Delivered()


async def test_a_worker_that_is_cancelled_says_nothing(subscriber: OutboxSubscriber) -> None:
    begun = asyncio.Event()

    async def hang(*_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    subscriber.process_message = hang  # type: ignore[assignment, method-assign]
    task = asyncio.create_task(subscriber.execute(ROW))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_strategy_that_gives_up_makes_a_row_dead(broker: OutboxBroker) -> None:
    subscriber = broker.subscriber("orders", retry_strategy=NoRetry())

    @subscriber
    async def handle(body: int) -> None:
        raise ValueError("x")

    await broker.start()
    assert await subscriber.execute(ROW) == Dead("retries_exhausted", "ValueError: x")
