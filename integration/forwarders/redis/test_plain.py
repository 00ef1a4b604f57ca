"""Entries of a stream with ordinary fields: what any client of Redis reads."""

import json
from typing import Any

import pytest
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from faststream_outbox import ExponentialRetry, Forward, OutboxBroker, OutboxMessage, Outgoing
from faststream_outbox.exceptions import ConfigError
from integration.broker.observing import Table, eventually
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import RedisServer


async def entries(server: RedisServer, stream: str) -> list[dict[str, Any]]:
    """Read a stream as text, which FastStream's envelope cannot be."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        return [fields for _, fields in await client.xrange(stream)]


async def test_the_body_and_each_header_are_fields(
    broker: OutboxBroker,
    redis: RedisBroker,
    redis_server: RedisServer,
    redis_key: str,
    publishing: Publishing,
    table: Table,
) -> None:
    publisher = redis.publisher(stream=redis_key, headers={"team": "größer"}, reply_to="answers")
    broker.forwarder("orders", to=publisher, envelope="plain")
    row_id = await publishing.one(
        {"name": "Müller"}, key="kunde-ü", headers={"ü": "☃"}, correlation_id="c-1", idempotency_key="i-1"
    )
    await broker.start()
    await eventually(table.is_empty)
    [entry] = await entries(redis_server, redis_key)
    assert entry.pop("outbox-created-at").endswith("Z")
    assert json.loads(entry.pop("body")) == {"name": "Müller"}
    assert entry == {
        "team": "größer",
        "reply_to": "answers",
        "ü": "☃",
        "content-type": "application/json",
        "correlation_id": "c-1",
        "idempotency-key": "i-1",
        "outbox-id": str(row_id),
        "outbox-queue": "orders",
        "outbox-key": "kunde-ü",
    }


async def test_bytes_arrive_byte_for_byte_and_in_order(
    broker: OutboxBroker,
    redis: RedisBroker,
    redis_server: RedisServer,
    redis_key: str,
    publishing: Publishing,
    table: Table,
) -> None:
    bodies = [bytes([0, 255, number % 256, 13, 10]) * (number % 7) for number in range(1200)]
    ids = await publishing.many(Outgoing(body, key=f"k{n % 5}") for n, body in enumerate(bodies))
    broker.forwarder("orders", to=redis.publisher(stream=StreamSub(redis_key, maxlen=10_000)), envelope="plain")
    await broker.start()
    await eventually(table.is_empty)
    async with redis_server.client() as client:
        there = [fields for _, fields in await client.xrange(redis_key)]
    body_of = dict(zip(ids, bodies, strict=True))
    assert len(there) == len(ids)
    for fields in there:
        body = body_of.pop(int(fields[b"outbox-id"]))
        assert fields[b"body"] == body
        assert fields.get(b"content-type") == (b"application/octet-stream" if body else None)
    for key in range(5):
        of_key = [int(fields[b"outbox-id"]) for fields in there if fields[b"outbox-key"] == b"k%d" % key]
        assert of_key == sorted(of_key)


async def test_another_stream_and_what_hides_the_body(
    broker: OutboxBroker,
    redis: RedisBroker,
    redis_server: RedisServer,
    redis_key: str,
    publishing: Publishing,
    table: Table,
) -> None:
    def elsewhere(message: OutboxMessage) -> Forward:
        return Forward(to=f"{redis_key}-{message.headers['country']}")

    publisher = redis.publisher(stream=redis_key)
    broker.forwarder("orders", to=publisher, envelope="plain", transform=elsewhere, retry_strategy=ExponentialRetry())
    await publishing.one("in order", headers={"country": "de"})
    hidden = await publishing.one("hidden", headers={"country": "de", "body": "x"})
    await broker.start()
    await eventually(lambda: _is_parked(table, hidden))
    [entry] = await entries(redis_server, f"{redis_key}-de")
    assert (entry["body"], entry["content-type"]) == ("in order", "text/plain")
    async with redis_server.client() as client:
        await client.delete(f"{redis_key}-de")


async def _is_parked(table: Table, row_id: int | None) -> bool:
    return [(row.id, row.failure_reason) for row in await table.rows()] == [(row_id, "invalid")]


async def test_a_list_has_no_fields(make_broker: MakeBroker, redis: RedisBroker) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=redis.publisher(list="orders"), envelope="plain")
    with pytest.raises(ConfigError, match="'plain' is for the fields of a stream's entry"):
        await broker.start()
