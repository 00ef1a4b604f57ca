"""G1, G3 for copies: written with the message or not at all, by every way of publishing and every driver."""

import asyncio
from datetime import timedelta

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from faststream_outbox import OutboxBroker

from .observing import Table
from .test_publishing import WAYS, Publish

COPIES = "orders=>kafka:orders.v1"


@pytest.fixture
def broker(broker: OutboxBroker) -> OutboxBroker:
    broker.forwarder("orders", to=KafkaBroker(acks="all").publisher("orders.v1"), tee=True)
    return broker


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def publish(request: pytest.FixtureRequest) -> Publish:
    return request.param


async def test_g1_a_message_and_its_copy_commit_together(
    broker: OutboxBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    written = await publish(broker, session)
    assert await table.is_empty()
    await session.commit()
    own, copied = await table.rows()
    assert written in (own.id, [own.id])
    assert (own.queue, copied.queue) == ("orders", COPIES)
    for column in ("key", "idempotency_key", "payload", "headers", "created_at", "timer_id", "next_attempt_at"):
        assert getattr(own, column) == getattr(copied, column), column


async def test_g1_neither_is_there_after_a_rollback(
    broker: OutboxBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    await publish(broker, session)
    await session.rollback()
    await session.commit()
    assert await table.is_empty()


async def test_g10_a_duplicate_leaves_the_transaction_usable(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    for expected in (True, False):
        written = await broker.publish("x", queue="orders", session=session, idempotency_key="once", timer_id="t")
        assert (written is not None) is expected
    await session.commit()
    assert [row.queue for row in await table.rows()] == ["orders", COPIES]
    assert await broker.cancel_timer(queue="orders", timer_id="t", session=session)
    await session.commit()
    assert await table.is_empty()


async def test_g1_publish_sync_makes_copies_with_another_driver(
    broker: OutboxBroker, database_url: str, table: Table
) -> None:
    def work() -> list[int | None]:
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
        try:
            with Session(engine) as session, session.begin():
                options = {"queue": "orders", "session": session, "headers": {"h": "é"}, "idempotency_key": "one"}
                delay = timedelta(hours=1)
                first = broker.publish_sync({"n": 1}, key="k", activate_in=delay, **options)
                return [
                    first,
                    broker.publish_sync(b"\x00\xff", **options),
                    broker.publish_sync(b"", **{**options, "idempotency_key": None}),
                ]
        finally:
            engine.dispose()

    first, duplicate, other = await asyncio.to_thread(work)
    assert duplicate is None
    rows = await table.rows()
    assert [row.id for row in rows if row.queue == "orders"] == [first, other]
    own, copied = [row for row in rows if row.idempotency_key == "one"]
    assert (copied.queue, copied.key, copied.headers, bytes(copied.payload)) == (COPIES, "k", own.headers, b'{"n":1}')
    assert own.next_attempt_at == copied.next_attempt_at
    assert own.headers["h"] == "é"
