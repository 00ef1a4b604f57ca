"""Handlers on a real database: FastAPI's, plain functions, and responses in the handler's own session."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from faststream import AckPolicy
from faststream import Depends as FastStreamDepends
from faststream.rabbit import RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage
from sqlalchemy import Engine, Table, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from faststream_outbox import ConstantRetry, Inbox, OutboxResponse
from faststream_outbox.fastapi import OutboxMessage, OutboxRouter
from integration.broker.observing import Table as Observer
from integration.broker.observing import eventually
from integration.servers.rabbitmq import RabbitServer

EFFECT = text("INSERT INTO effects (key) VALUES (:key)")
HEADERS = {"idempotency-key": "k", "outbox-queue": "orders"}


@pytest.fixture
def sync_engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


async def test_a_fastapi_subscriber_handles_each_message_once_and_its_response_commits_with_it(
    engine: AsyncEngine, outbox_table: Table, inbox: Inbox, table: Observer
) -> None:
    router = OutboxRouter(engine, outbox_table=outbox_table, logger=None)
    attempts: list[str] = []

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @router.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0))
    @inbox.once
    async def handle(
        body: dict[str, str], message: OutboxMessage, session: AsyncSession = Depends(get_session)
    ) -> OutboxResponse:
        attempts.append(message.idempotency_key)
        await session.execute(EFFECT, {"key": message.idempotency_key})
        if len(attempts) == 1:
            raise InterruptedError
        return OutboxResponse(body, queue="invoices", session=session)

    app = FastAPI()
    app.include_router(router)
    await router.broker.start()
    try:
        for copies in (1, 2):
            async with AsyncSession(engine) as session, session.begin():
                await router.broker.publish({"n": "1"}, queue="orders", idempotency_key="k", session=session)
            await eventually(lambda copies=copies: inbox.accepted - 1 + inbox.repeated == copies, within=15)
            await eventually(lambda: _is_empty(table, "orders"), within=15)
    finally:
        await router.broker.stop()
    assert attempts == ["k", "k"]
    assert (inbox.accepted, inbox.repeated) == (2, 1)
    assert await table.count(name="effects") == 1
    assert await table.count("queue = 'invoices'") == 1


async def test_a_plain_function_with_a_plain_session(
    sync_engine: Engine, rabbit_server: RabbitServer, queue: str, inbox: Inbox, table: Observer
) -> None:
    def get_session() -> Iterator[Session]:
        with Session(sync_engine) as session, session.begin():
            yield session

    broker = RabbitBroker(rabbit_server.url, logger=None)
    failures: list[Any] = []

    @broker.subscriber(RabbitQueue(queue, durable=True, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR)
    @inbox.once
    def handle(message: RabbitMessage, session: Session = FastStreamDepends(get_session)) -> None:
        session.execute(EFFECT, {"key": "k"})
        if not failures:
            failures.append(message)
            raise InterruptedError

    async with broker:
        await broker.start()
        for repeats in range(3):
            await broker.publish(b"", queue, headers=HEADERS)
            await eventually(lambda repeats=repeats: inbox.repeated == repeats and inbox.accepted == 2, within=15)
    assert await table.count(name="effects") == 1


async def _is_empty(table: Observer, queue: str) -> bool:
    return await table.count(f"queue = '{queue}'") == 0
