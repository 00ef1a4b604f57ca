"""G1 for handlers: what a handler returns as OutboxResponse commits with its writes, or not at all."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from faststream import AckPolicy, BaseMiddleware, Depends, PublishCommand
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from faststream_outbox import ConstantRetry, NoRetry, OutboxBroker, OutboxResponse, OutboxRouter
from faststream_outbox.annotations import OutboxMessage as Message

from .conftest import MakeBroker
from .observing import Inbox, Table, eventually

SessionFactory = async_sessionmaker[AsyncSession]
GetSession = Callable[[], AsyncIterator[AsyncSession]]


@pytest.fixture(autouse=True)
async def domain(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        # The last row fails at COMMIT, after the handler has returned.
        await connection.execute(
            text("CREATE TABLE invoice (id int PRIMARY KEY, ok int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )


@pytest.fixture
def get_session(session_factory: SessionFactory) -> GetSession:
    async def get_session() -> AsyncIterator[AsyncSession]:
        async with session_factory.begin() as session:
            yield session

    return get_session


async def write(session: AsyncSession, number: int, ok: int | None = None) -> None:
    await session.execute(text("INSERT INTO invoice VALUES (:id, :ok)"), {"id": number, "ok": ok})


@pytest.mark.parametrize("via", ["broker", "router"])
async def test_g1_the_response_and_the_handlers_writes_commit_together(
    make_broker: MakeBroker, session: AsyncSession, table: Table, get_session: GetSession, via: str
) -> None:
    broker = make_broker()
    place = broker if via == "broker" else OutboxRouter(prefix="shop-")
    prefix = "" if via == "broker" else "shop-"

    @place.subscriber("orders")
    async def handle(number: int, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        await write(session, number)
        return OutboxResponse(
            {"invoice": number},
            queue="invoices",
            session=session,
            key="k",
            headers={"h": "v"},
            idempotency_key=f"invoice-{number}",
            timer_id="t",
            activate_in=timedelta(hours=1),
        )

    if isinstance(place, OutboxRouter):
        broker.include_router(place)
    await broker.start()
    inbound = await broker.publish(1, queue=f"{prefix}orders", session=session, correlation_id="c")
    await session.commit()
    await eventually(lambda: table.count("queue = 'invoices'"))
    assert await table.count(name="invoice") == 1
    await eventually(lambda: table.query("SELECT 1 WHERE NOT EXISTS (SELECT FROM outbox WHERE id = :id)", id=inbound))
    (row,) = await table.rows()
    assert (bytes(row.payload), row.key, row.idempotency_key, row.timer_id) == (b'{"invoice":1}', "k", "invoice-1", "t")
    assert (row.headers["h"], row.headers["correlation_id"]) == ("v", "c")
    assert row.next_attempt_at - row.created_at == pytest.approx(timedelta(hours=1), abs=timedelta(minutes=1))
    writers = await table.query("SELECT xmin::text FROM outbox UNION SELECT xmin::text FROM invoice")
    assert len(writers) == 1, "one transaction wrote both"


@pytest.mark.parametrize("failure", ["after the publish", "at the commit", "bad response"])
async def test_g1_neither_is_there_when_the_handler_fails(
    make_broker: MakeBroker, session: AsyncSession, table: Table, get_session: GetSession, failure: str
) -> None:
    broker = make_broker()

    async def failing_after() -> AsyncIterator[None]:
        yield
        if failure == "after the publish":
            raise ValueError("too late")

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(
        number: int, session: AsyncSession = Depends(get_session), _: None = Depends(failing_after)
    ) -> OutboxResponse:
        await write(session, number)
        if failure == "at the commit":
            await write(session, -1, ok=1)
            await write(session, -2, ok=1)
        queue = "" if failure == "bad response" else "invoices"
        return OutboxResponse(b"", queue=queue, session=session)

    await broker.start()
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    assert await table.count(name="invoice") == 0
    (row,) = await table.rows()
    assert row.queue == "orders"
    expected = {
        "after the publish": "too late",
        "at the commit": "IntegrityError",
        "bad response": "queue: must be 1 to",
    }
    assert expected[failure] in row.last_exception


async def test_a_response_on_a_connection_and_one_of_a_synchronous_handler(
    broker: OutboxBroker, engine: AsyncEngine, session: AsyncSession, inbox: Inbox
) -> None:
    async def get_connection() -> AsyncIterator[AsyncConnection]:
        async with engine.begin() as connection:
            yield connection

    @broker.subscriber("orders")
    def handle(number: int, connection: AsyncConnection = Depends(get_connection)) -> OutboxResponse:
        return OutboxResponse(number + 1, queue="invoices", session=connection)

    @broker.subscriber("invoices")
    async def receive(body: int, message: Message) -> None:
        inbox.add((body, message.correlation_id))

    await broker.start()
    await broker.publish(1, queue="orders", session=session, correlation_id="c")
    await session.commit()
    assert await inbox.wait_for(1) == [(2, "c")]


async def test_publish_middlewares_see_the_response(
    make_broker: MakeBroker, session: AsyncSession, table: Table, get_session: GetSession
) -> None:
    class Stamp(BaseMiddleware[PublishCommand]):
        async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
            cmd.add_headers({"stamps": cmd.headers.get("stamps", "") + "x"})
            return await call_next(cmd)

    broker = make_broker(middlewares=[Stamp])

    @broker.subscriber("orders")
    async def handle(number: int, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(number, queue="invoices", session=session)

    await broker.start()
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    (row,) = await eventually(lambda: table.query("SELECT headers FROM outbox WHERE queue = 'invoices'"))
    assert row.headers["stamps"] == "x", "each message passes once"


@pytest.mark.parametrize("policy", [AckPolicy.NACK_ON_ERROR, AckPolicy.ACK])
async def test_g2_a_response_that_nobody_commits_is_an_error_and_no_lost_message(
    broker: OutboxBroker, session: AsyncSession, session_factory: SessionFactory, table: Table, policy: AckPolicy
) -> None:
    """The session's block ends before the response is written: SQLAlchemy silently begins a transaction for it."""

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0.1, max_attempts=2), ack_policy=policy)
    async def handle(number: int) -> OutboxResponse:
        async with session_factory.begin() as own:
            return OutboxResponse(number, queue="invoices", session=own)

    await broker.start()
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    (row,) = await table.rows()
    assert (row.queue, row.attempts_count) == ("orders", 2)
    assert "OutboxResponse's session was not committed" in row.last_exception
    assert await table.count("state LIKE 'idle in transaction%'", "pg_stat_activity") == 0, "nothing stays open"


async def test_g3_a_message_delivered_again_writes_its_response_once(
    broker: OutboxBroker, session: AsyncSession, table: Table, get_session: GetSession
) -> None:
    """With a key made of the message's, the second delivery's response is a no-op while the first one lives."""

    @broker.subscriber("orders")
    async def handle(number: int, message: Message, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(number, queue="invoices", session=session, idempotency_key=message.idempotency_key)

    await broker.start()
    for _ in range(2):
        await broker.publish(1, queue="orders", session=session, idempotency_key="same")
        await session.commit()
        await eventually(lambda: table.query("SELECT 1 WHERE NOT EXISTS (SELECT FROM outbox WHERE queue = 'orders')"))
    assert await table.count("queue = 'invoices'") == 1
