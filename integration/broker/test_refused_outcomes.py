"""An outcome that the database refuses holds up no other, however many there are."""

import asyncio
import logging

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import NoRetry, OutboxBroker
from faststream_outbox._engine.handling import set_aside

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never this one'; END $$
"""
TRIGGER = """
CREATE TRIGGER refuse BEFORE DELETE ON outbox FOR EACH ROW WHEN (OLD.queue = 'bad') EXECUTE FUNCTION refuse()
"""


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_g2_more_than_a_thousand_of_one_queue_leave_the_others_alone_and_run_once(
    engine: AsyncEngine, outbox_table: Table, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "RETRY_SECONDS", (0.5, 0.5))
    await run(engine, REFUSE, TRIGGER)
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=logging.getLogger("test"))
    bad: list[int] = []
    good: list[int] = []

    @broker.subscriber("bad", max_workers=10, fetch_batch_size=100)
    async def handle_bad(body: int) -> None:
        bad.append(body)

    @broker.subscriber("good", max_workers=10, fetch_batch_size=100)
    async def handle_good(body: int) -> None:
        good.append(body)

    async def publish(queue: str, count: int) -> None:
        async with AsyncSession(engine) as session, session.begin():
            await broker.publish_batch(*range(count), queue=queue, session=session)

    await publish("bad", 3000)
    await broker.start()
    async with asyncio.timeout(60):
        while broker.set_aside < set_aside.MOST_SET_ASIDE:
            await asyncio.sleep(0.01)
        await publish("good", 2000)
        while len(good) < 2000:
            await asyncio.sleep(0.01)
    # What was in hand when the thousandth was set aside is handled still; more is not claimed.
    assert len(bad) < 3000
    assert "never this one" in caplog.text
    await run(engine, "DROP FUNCTION refuse CASCADE")
    async with asyncio.timeout(60), engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while await connection.scalar(text("SELECT count(*) FROM outbox")):
            await asyncio.sleep(0.05)
    assert sorted(bad) == list(range(3000))
    assert broker.set_aside == 0
    await broker.stop()
    assert OutboxBroker(engine, outbox_table=outbox_table).set_aside == 0


async def test_g11_without_its_dead_letter_table_a_failed_message_is_parked_and_others_are_handled(
    engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> None:
    await run(engine, "DROP TABLE outbox_dlq")
    broker = OutboxBroker(engine, outbox_table=outbox_table, dlq_table=dlq_table, logger=None)
    good = asyncio.Event()

    @broker.subscriber("bad", retry_strategy=NoRetry())
    async def fail(body: dict[str, int]) -> None:
        raise ValueError("no")

    @broker.subscriber("good")
    async def handle(body: dict[str, int]) -> None:
        good.set()

    await broker.start()
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({}, queue="bad", session=session)
    async with asyncio.timeout(20), engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        parked = text("SELECT last_exception FROM outbox WHERE failed_at IS NOT NULL")
        while (said := await connection.scalar(parked)) is None:
            await asyncio.sleep(0.01)
    assert said.startswith("ValueError: no; not moved to the dead-letter table: UndefinedTableError")
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({}, queue="good", session=session)
    async with asyncio.timeout(20):
        await good.wait()
    await broker.stop()
