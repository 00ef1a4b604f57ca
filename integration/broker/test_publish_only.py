"""A broker that only publishes, beside a process that consumes: `publish_only=True` on a real server."""

import pytest
from faststream.redis import RedisBroker
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from .conftest import MakeBroker
from .observing import Inbox, Table, Traffic

FAR = {"min_fetch_interval": 30.0, "max_fetch_interval": 30.0}


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_message_takes_one_statement_and_no_other_connection(
    *, engine: AsyncEngine, database_url: str, make_broker: MakeBroker, inbox: Inbox, table: Table, is_started: bool
) -> None:
    other = create_async_engine(database_url)
    consuming = make_broker(other)

    @consuming.subscriber("orders", **FAR)
    async def handle(body: int) -> None:
        inbox.add(body)

    await consuming.start()
    broker = make_broker(publish_only=True)
    broker.forwarder("paid", to=RedisBroker().publisher(stream="paid"), tee=True, name="redis")
    traffic = Traffic(engine)
    if is_started:
        await broker.start()
    assert traffic.connects == 0
    async with async_sessionmaker(engine)() as session, session.begin():
        mine = len(traffic.statements)
        await broker.publish(1, queue="orders", session=session)
        await broker.publish(2, queue="paid", session=session)
    published = [statement for statement in traffic.statements[mine:] if "outbox insert" in statement]
    assert len(published) == 2
    assert traffic.connects == 1
    # The consumer is woken, although it looks by itself every half minute.
    await inbox.wait_for(1)
    await consuming.stop()
    assert {row.queue for row in await table.rows()} == {"paid", "paid=>redis"}
    health = await broker.health()
    assert (health.state, health.problems) == ("ok", ())
    await broker.stop()
    traffic.close()
    await other.dispose()


async def test_it_holds_no_listening_connection(make_broker: MakeBroker, session: AsyncSession, table: Table) -> None:
    broker = make_broker(publish_only=True)
    await broker.start()
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    sessions = await table.query(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' AND application_name <> 'observer'"
    )
    # That of the session, back in its pool.
    assert len(sessions) == 1
    assert "LISTEN" not in sessions[0].query.upper()
