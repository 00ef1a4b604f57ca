"""A service that publishes, the relays that carry what it publishes, and a plain reader of the topic."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, Outgoing, make_outbox_table, make_position_table
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from integration.broker.observing import LogLines
from integration.servers.topics import Record, read_topic

QUEUE = "orders"
KEYS = 20


def make_tables() -> MetaData:
    metadata = MetaData()
    make_outbox_table(metadata)
    make_position_table(metadata)
    return metadata


def make_relay(engine: AsyncEngine, bootstrap: str, topic: str, **options: Any) -> tuple[OutboxBroker, OutboxForwarder]:
    """Return a broker with one forwarder, which sends exactly once by default."""
    tables = make_tables().tables
    broker = OutboxBroker(
        engine, outbox_table=tables["outbox"], position_table=tables["outbox_position"], logger=None, graceful_timeout=5
    )
    kafka = KafkaBroker(bootstrap, acks="all", logger=None, request_timeout_ms=options.pop("request_timeout_ms", 5000))
    options = {"exactly_once": True, "name": "relay", **options}
    return broker, broker.forwarder(QUEUE, to=kafka.publisher(topic), **options)


class Shop:
    """Everything of one test.

    Args:
        engine: Of a database of its own.
        bootstrap: The Kafka servers.
        topic: A fresh one.
    """

    def __init__(self, engine: AsyncEngine, bootstrap: str, topic: str) -> None:
        self.engine = engine
        self.bootstrap = bootstrap
        self.topic = topic
        self.log = LogLines()
        self.published = 0
        self._publisher = OutboxBroker(engine, outbox_table=make_tables().tables["outbox"], logger=None)
        self._brokers: list[OutboxBroker] = []

    async def publish(self, count: int, *, keys: int = KEYS) -> None:
        """Publish messages, every fifth of them without a key, unless there is one key only."""
        numbers = range(self.published, self.published + count)
        messages = [
            Outgoing({"number": number}, key=None if number % 5 == 0 and keys > 1 else f"key-{number % keys}")
            for number in numbers
        ]
        async with self.engine.begin() as connection:
            await self._publisher.publish_batch(*messages, queue=QUEUE, session=connection)
        self.published += count

    def relay(self, **options: Any) -> tuple[OutboxBroker, OutboxForwarder]:
        broker, forwarder = make_relay(self.engine, self.bootstrap, self.topic, **options)
        self._brokers.append(broker)
        return broker, forwarder

    async def close(self) -> None:
        for broker in self._brokers:
            await broker.stop()

    async def rows(self) -> int:
        return int(await self.value("SELECT count(*) FROM outbox"))

    async def value(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement))

    async def until_empty(self, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while await self.rows():
                await asyncio.sleep(0.02)

    async def records(self) -> list[Record]:
        """Return what a plain consumer gets, which reads uncommitted records too, in the order of each partition."""
        return await read_topic(self.bootstrap, self.topic, 0)

    async def check(self) -> None:
        """Check that each message is there once, and those of each key in their order."""
        records = await self.records()
        times = Counter(number_of(record) for record in records)
        assert not {*range(self.published)} - times.keys(), "lost"
        assert not {number: count for number, count in times.items() if count > 1}, "repeated"
        check_order(records)


def number_of(record: Record) -> int:
    return int((record.value or b"").split(b":")[1].strip(b" }"))


def check_order(records: list[Record]) -> None:
    last: dict[bytes, int] = {}
    for record in records:
        if record.key is not None:
            number = number_of(record)
            assert last.get(record.key, -1) < number, "out of order"
            last[record.key] = number


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
