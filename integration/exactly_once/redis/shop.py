"""A shop whose relays send to a Redis stream or list."""

from typing import Any, NamedTuple

from faststream.redis import RedisBroker
from faststream.redis.parser import BinaryMessageFormatV1
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from integration.exactly_once.shop import QUEUE, Shop, make_tables


class Record(NamedTuple):
    """One message, as a plain client finds it."""

    key: bytes | None
    value: bytes


def make_redis_relay(
    engine: AsyncEngine, bootstrap: str, topic: str, **options: Any
) -> tuple[OutboxBroker, OutboxForwarder]:
    """Return a broker with one forwarder, which sends exactly once by default: to a stream, or with `holds="list"`."""
    tables = make_tables().tables
    broker = OutboxBroker(
        engine, outbox_table=tables["outbox"], position_table=tables["outbox_position"], logger=None, graceful_timeout=5
    )
    redis = options.pop("redis", None) or RedisBroker(bootstrap, logger=None)
    holds = options.pop("holds", "stream")
    publisher = redis.publisher(list=topic) if holds == "list" else redis.publisher(stream=topic)
    return broker, broker.forwarder(QUEUE, to=publisher, **{"exactly_once": True, "name": "relay", **options})


class RedisShop(Shop):
    """A shop before a Redis.

    Args:
        engine: Of a database of its own.
        url: Of the server.
        name: Of a fresh stream or list.
        holds: Which of them.
    """

    def __init__(self, engine: AsyncEngine, url: str, name: str, holds: str = "stream") -> None:
        super().__init__(engine, url, name)
        self.holds = holds

    def relay(self, **options: Any) -> tuple[OutboxBroker, OutboxForwarder]:
        broker, forwarder = make_redis_relay(
            self.engine, self.bootstrap, self.topic, **{"holds": self.holds, **options}
        )
        self._brokers.append(broker)
        return broker, forwarder

    async def records(self) -> list[Record]:
        async with Redis.from_url(self.bootstrap) as client:
            return await records_of(client, self.topic)


async def records_of(client: Redis, name: str) -> list[Record]:
    """Return what is in a stream or list, in its order."""
    if await client.type(name) == b"list":
        envelopes = await client.lrange(name, 0, -1)
    else:
        envelopes = [fields[b"__data__"] for _, fields in await client.xrange(name)]
    records = []
    for envelope in envelopes:
        body, headers = BinaryMessageFormatV1.parse(envelope)
        key = headers.get("outbox-key")
        records.append(Record(None if key is None else key.encode(), body))
    return records
