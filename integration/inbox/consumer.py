"""A consumer with an inbox, in a process of its own: `python -m integration.inbox.consumer`, told by a `ConsumerPlan`.

It enters each delivery in `deliveries`, at once and in a transaction of its own, before its handler decides anything.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from faststream import AckPolicy, BaseMiddleware, Context, Depends
from faststream.message import StreamMessage
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import Inbox, make_inbox_table
from integration.faults.processes import ChildProcess, run_python

ENVIRONMENT = "OUTBOX_CONSUMER_PLAN"
TABLES = """
    CREATE TABLE effects (number bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, consumer text);
    CREATE TABLE deliveries (number bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL)
"""
"""Of effects there is one for each time that a handler has done its work; nothing keeps a second one out."""
AnyMessage = Annotated[StreamMessage[Any], Context("message")]


@dataclass(frozen=True, kw_only=True)
class ConsumerPlan:
    """What a consumer reads, and how it dies.

    Attributes:
        kind, server, source: the broker, its bootstrap server or URL, and the topic, queue or stream there.
        crash: "before commit" or "after commit" (and before the acknowledgement) of the `crash_number`-th message that
            was accepted, or a later one; None: it goes on.
        failing: every so-manieth message that was accepted fails for once; 0: none.
    """

    database_url: str
    kind: str
    server: str
    source: str
    crash: str | None = None
    crash_number: int = 1
    failing: int = 0


@asynccontextmanager
async def running_consumer(plan: ConsumerPlan) -> AsyncIterator[ChildProcess]:
    """Run a consumer until it is left, which kills it."""
    environment = {ENVIRONMENT: json.dumps(asdict(plan))}
    async with run_python("-m", __name__, env=environment, timeout=60) as child:
        yield child


class Consumer:
    """The handler, and where it dies."""

    def __init__(self, plan: ConsumerPlan) -> None:
        self._plan = plan
        self._engine = create_async_engine(plan.database_url)
        self._at_once = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._sessions = async_sessionmaker(self._engine)
        self._accepted = 0
        self.inbox = Inbox(make_inbox_table(MetaData()), consumer="billing")

    async def note(self, message: StreamMessage[Any]) -> None:
        async with self._at_once.connect() as connection:
            key = {"key": message.headers["idempotency-key"]}
            await connection.execute(text("INSERT INTO deliveries (key) VALUES (:key)"), key)

    async def session(self) -> AsyncIterator[AsyncSession]:
        async with self._sessions() as session:
            async with session.begin():
                yield session
                self._reached("before commit", session)
            self._reached("after commit", session)

    async def work(self, message: StreamMessage[Any], session: AsyncSession) -> None:
        self._accepted += 1
        session.info["number"] = self._accepted
        key = {"key": message.headers["idempotency-key"]}
        await session.execute(text("INSERT INTO effects (key) VALUES (:key)"), key)
        if self._plan.failing and self._accepted % self._plan.failing == 0:
            raise InterruptedError

    def _reached(self, point: str, session: AsyncSession) -> None:
        # Others may be under way, and one that has failed gets no further: the next one dies.
        if point == self._plan.crash and session.info.get("number", 0) >= self._plan.crash_number:
            os.kill(os.getpid(), signal.SIGKILL)


def noting(consumer: Consumer) -> type[BaseMiddleware]:
    class Noting(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
            await consumer.note(msg)
            return await call_next(msg)

    return Noting


def subscribe(plan: ConsumerPlan, middleware: Any) -> tuple[Any, Any]:
    """The broker, and its subscriber, which the broker delivers to again unless it acknowledges."""
    options: dict[str, Any] = {"middlewares": (middleware,), "logger": None}
    if plan.kind == "kafka":
        from faststream.kafka import KafkaBroker

        kafka = KafkaBroker(plan.server, **options)
        return kafka, kafka.subscriber(
            plan.source,
            group_id="billing",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            session_timeout_ms=6000,
            heartbeat_interval_ms=1000,
        )
    if plan.kind == "rabbit":
        from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

        rabbit = RabbitBroker(plan.server, default_channel=Channel(prefetch_count=20), **options)
        queue = RabbitQueue(plan.source, durable=True, declare=False)
        return rabbit, rabbit.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)
    from faststream.redis import RedisBroker, StreamSub

    redis = RedisBroker(plan.server, **options)
    return redis, redis.subscriber(stream=StreamSub(plan.source, last_id="0", polling_interval=50))


async def main() -> None:
    plan = ConsumerPlan(**json.loads(os.environ[ENVIRONMENT]))
    consumer = Consumer(plan)
    broker, subscriber = subscribe(plan, noting(consumer))

    @subscriber
    @consumer.inbox.once
    async def handle(message: AnyMessage, session: Annotated[AsyncSession, Depends(consumer.session)]) -> None:
        await consumer.work(message, session)

    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
