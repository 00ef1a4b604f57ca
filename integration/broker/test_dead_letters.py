"""``broker.dead_letters``: on the caller's session or an own one, and through to the handler again."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import ConfigError, InvalidSessionError, NoRetry, OutboxBroker

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - that is what is wrong with it


@pytest.fixture(params=["parked", "moved"])
async def broker(request: pytest.FixtureRequest, engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> Any:
    broker = OutboxBroker(
        engine, outbox_table=outbox_table, dlq_table=dlq_table if request.param == "moved" else None, logger=None
    )
    yield broker
    await broker.stop()


async def test_what_a_handler_failed_is_replayed_to_it_with_the_same_identity(
    broker: OutboxBroker, engine: AsyncEngine
) -> None:
    handled: list[tuple[Any, str, int]] = []
    is_well = False

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: dict[str, int]) -> None:
        message = broker.context.get_local("message")
        handled.append((body, message.idempotency_key, message.attempts_count))
        if not is_well:
            raise RuntimeError("not yet")

    await broker.start()
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({"n": 1}, queue="orders", key="k", session=session)
    await _until(broker, lambda count: count == 1)
    [letter] = await broker.dead_letters.list(queue="orders", reason="retries_exhausted")
    assert letter.exception == "RuntimeError: not yet"
    is_well = True
    assert await broker.dead_letters.replay(queue="orders") == 1
    await _until(broker, lambda _: len(handled) == 2)
    assert handled == [({"n": 1}, letter.row.idempotency_key, 0)] * 2
    await broker.stop()
    async with AsyncSession(engine) as session:
        assert await broker.fetch_unprocessed(session=session) == []
    assert await broker.dead_letters.count() == 0


async def test_on_the_callers_session_it_commits_with_the_rest_or_not_at_all(
    broker: OutboxBroker, engine: AsyncEngine
) -> None:
    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: dict[str, int]) -> None:
        raise RuntimeError

    await broker.start()
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({}, queue="orders", session=session)
    await _until(broker, lambda count: count == 1)
    await broker.stop()
    for change in (broker.dead_letters.replay, broker.dead_letters.discard):
        async with AsyncSession(engine) as session:
            assert await change(session=session) == 1
            assert await broker.dead_letters.count(session=session) == 0
            await session.rollback()
        assert await broker.dead_letters.count() == 1
    async with AsyncSession(engine) as session, session.begin():
        assert await broker.dead_letters.discard(session=session) == 1
    assert await broker.dead_letters.count() == 0


async def test_bad_input_is_refused(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match="failed_after: must be a timezone-aware"):
        await broker.dead_letters.list(failed_after=NAIVE)
    for limit in (0, -1, True, 10_000_000):
        with pytest.raises(ConfigError, match="limit"):
            await broker.dead_letters.replay(limit=limit)
    with pytest.raises(TypeError, match="reasons"):
        await broker.dead_letters.count(reasons="rejected")  # type: ignore[call-arg]
    wrong: Any = "session"
    with pytest.raises(InvalidSessionError):
        await broker.dead_letters.count(session=wrong)


async def _until(broker: OutboxBroker, reached: Any) -> None:
    async with asyncio.timeout(10):
        while not reached(await broker.dead_letters.count()):
            await asyncio.sleep(0.01)
