"""The database is lost around a handler's commit: RabbitMQ delivers again, and the effect is there once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from faststream import AckPolicy, Depends
from faststream.rabbit import RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import Inbox
from integration.broker.observing import Table, eventually
from integration.faults.proxy import Direction, TcpProxy
from integration.servers.rabbitmq import RabbitServer

HEADERS = {"idempotency-key": "k", "outbox-queue": "orders"}


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    url = make_url(database_url)
    async with TcpProxy(url.host or "127.0.0.1", url.port or 5432) as proxy:
        yield proxy


class Trial:
    """A consumer behind the proxy; the first delivery meets the trouble, before or after its commit."""

    def __init__(self, inbox: Inbox, table: Table, proxy: TcpProxy, trouble: str) -> None:
        self.deliveries = 0
        self.inbox = inbox
        self._table = table
        self._proxy = proxy
        self._trouble = trouble
        self._sessions: async_sessionmaker[AsyncSession]

    @asynccontextmanager
    async def consumer(self, database_url: str, rabbit: RabbitServer, queue: str) -> AsyncIterator[RabbitBroker]:
        host, _, port = self._proxy.address.partition(":")
        engine = create_async_engine(make_url(database_url).set(host=host, port=int(port)))
        self._sessions = async_sessionmaker(engine)
        broker = RabbitBroker(rabbit.url, logger=None)

        @broker.subscriber(RabbitQueue(queue, durable=True, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR)
        @self.inbox.once
        async def handle(message: RabbitMessage, session: Annotated[AsyncSession, Depends(self.session)]) -> None:
            await session.execute(text("INSERT INTO effects (key) VALUES ('k')"))

        async with broker:
            await broker.start()
            yield broker
        await engine.dispose()

    async def session(self) -> AsyncIterator[AsyncSession]:
        self.deliveries += 1
        is_first = self.deliveries == 1
        async with self._sessions() as session, session.begin():
            yield session
            if is_first:
                await self._make_trouble(session)

    async def _make_trouble(self, session: AsyncSession) -> None:
        if self._trouble == "the backend dies before the commit":
            pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await self._table.query("SELECT pg_terminate_backend(:pid)", pid=pid)
        else:
            # The COMMIT gets there, and its answer does not come back.
            self._proxy.black_hole([Direction.TO_CLIENT])
            self._cutting = asyncio.create_task(self._cut_when_committed())

    async def _cut_when_committed(self) -> None:
        await eventually(self._is_committed)
        self._proxy.reset()
        await self._proxy.restore()

    async def _is_committed(self) -> bool:
        return await self._table.count(name="effects") == 1


@pytest.mark.parametrize(
    ("trouble", "repeats"),
    [("the backend dies before the commit", 0), ("the answer to the commit is lost", 1)],
)
async def test_the_database_is_lost(
    *,
    inbox: Inbox,
    table: Table,
    proxy: TcpProxy,
    database_url: str,
    rabbit_server: RabbitServer,
    queue: str,
    trouble: str,
    repeats: int,
) -> None:
    trial = Trial(inbox, table, proxy, trouble)
    async with trial.consumer(database_url, rabbit_server, queue) as broker:
        await broker.publish(b"", queue, headers=HEADERS)
        await eventually(lambda: trial.deliveries >= 2, within=30)
        await eventually(lambda: inbox.accepted + inbox.repeated >= 2, within=30)
        await eventually(trial._is_committed, within=30)
        await broker.publish(b"", queue, headers=HEADERS)
        await eventually(lambda: inbox.repeated == repeats + 1, within=30)
    assert await table.count(name="effects") == 1
    assert await table.count(name="inbox") == 1


async def test_a_message_that_waits_for_a_winner_whose_process_loses_its_connection(
    inbox: Inbox, table: Table, proxy: TcpProxy, database_url: str
) -> None:
    """The winner is gone without a word: PostgreSQL rolls back, and the one that waits goes on."""
    from .test_accepting import WAITING, copy_of

    host, _, port = proxy.address.partition(":")
    cut = create_async_engine(make_url(database_url).set(host=host, port=int(port)))
    whole = create_async_engine(database_url)
    async with AsyncSession(cut) as winner, AsyncSession(whole) as loser:
        assert await inbox.accept(winner, copy_of())
        waiting = asyncio.create_task(inbox.accept(loser, copy_of()))

        async def is_waiting() -> Any:
            return (await table.query(WAITING))[0].n == 1

        await eventually(is_waiting)
        proxy.reset()
        assert await waiting
        await loser.commit()
        await winner.invalidate()
    await asyncio.gather(cut.dispose(), whole.dispose())
    assert await table.count(name="inbox") == 1
