"""What is special about Redis: section "On the wire" of the contract."""

import json
from typing import Any

import pytest
from faststream import Context
from faststream.redis import ListSub, RedisBroker, RedisRouter, StreamSub
from faststream.redis.parser import MessageFormat

from faststream_outbox import OutboxBroker, OutboxRouter, Outgoing
from faststream_outbox.exceptions import ConfigError
from integration.broker.observing import Table, eventually
from integration.destinations.redis import StreamBox
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import RedisServer


async def test_a_subscriber_of_a_channel_gets_what_a_local_subscriber_gets(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing
) -> None:
    bodies: list[Any] = [{"a": [1, None]}, "text", b"\x00\xff", b"", 3.5, ["list"]]
    local, remote = [], []

    @broker.subscriber("local")
    async def handle(body: Any, message: Any = Context()) -> None:
        local.append((body, message))

    @redis.subscriber(channel=box.name)
    async def consume(body: Any, message: Any = Context()) -> None:
        remote.append((body, message))

    broker.forwarder("remote", to=redis.publisher(channel=box.name), allow_lossy=True)
    async with redis:
        await redis.start()
        for queue in ("local", "remote"):
            for number, body in enumerate(bodies):
                its = {"idempotency_key": f"i-{number}", "correlation_id": f"c-{number}", "key": "k"}
                await publishing.one(body, queue=queue, headers={"x": "y", "ü": "ö"}, **its)
        await broker.start()
        await eventually(lambda: len(local) == len(remote) == len(bodies), within=10)
        await broker.stop()
    its_own = ("outbox-id", "outbox-queue", "outbox-created-at", "outbox-key", "message_id")
    for (local_body, local_message), (remote_body, remote_message) in zip(local, remote, strict=True):
        assert remote_body == local_body
        assert remote_message.body == local_message.body
        assert remote_message.correlation_id == local_message.correlation_id
        assert remote_message.message_id == local_message.message_id
        assert {name: value for name, value in remote_message.headers.items() if name not in its_own} == {
            name: value for name, value in local_message.headers.items() if name not in its_own
        }


async def test_the_publisher_says_where_messages_go_and_what_they_carry(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    publisher = redis.publisher(list=box.name, headers={"team": "größer", "x": "publisher"}, reply_to="answers")
    broker.forwarder("orders", to=publisher)
    await publishing.many([Outgoing(b"1", key="k"), Outgoing(b"2", key="k", headers={"x": "message"})])
    await broker.start()
    await eventually(table.is_empty)
    first, second = await box.read()
    assert first.headers["team"] == second.headers["team"] == "größer"
    assert (first.headers["x"], second.headers["x"]) == ("publisher", "message")
    assert second.headers["reply_to"] == "answers"


async def test_a_stream_keeps_to_its_maxlen(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many([Outgoing(b"", key="k")] * 1500)
    broker.forwarder("orders", to=redis.publisher(stream=StreamSub(box.name, maxlen=100)))
    await broker.start()
    await eventually(table.is_empty)
    kept = await box.read()
    # Redis drops blocks of a hundred, and keeps what is not a whole block.
    assert 100 <= len(kept) <= 200
    assert [message.row_id for message in kept] == ids[-len(kept) :]


async def test_a_batch_publisher_of_a_list_sends_message_by_message(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=redis.publisher(list=ListSub(box.name, batch=True)))
    ids = await publishing.many([Outgoing(b"", key="k")] * 3)
    await broker.start()
    await eventually(table.is_empty)
    assert [message.row_id for message in await box.read()] == ids


async def test_several_queues_prefixes_and_a_redis_router(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    start, _, end = box.name.partition("-")
    redis_router = RedisRouter(prefix=f"{start}-")
    router = OutboxRouter(prefix="shop.")
    forwarder = router.forwarder(["orders", "refunds"], to=redis_router.publisher(stream=end))
    broker.include_router(router)
    redis.include_router(redis_router)
    for queue in ("shop.orders", "shop.refunds", "orders"):
        await publishing.one(b"", queue=queue)
    await broker.start()
    await eventually(lambda: _is_left(table, "orders"))
    assert forwarder.name == f"redis:{box.name}"
    assert {message.headers["outbox-queue"] for message in await box.read()} == {"shop.orders", "shop.refunds"}


async def _is_left(table: Table, queue: str) -> bool:
    return [row.queue for row in await table.rows()] == [queue]


class TextFormat(MessageFormat):
    """A format of the user's own, which carries text only."""

    @classmethod
    async def encode(cls, *, message: Any, headers: Any, correlation_id: str, **_: Any) -> bytes:
        return json.dumps({"body": message.decode(), "headers": headers, "id": correlation_id}).encode()

    @classmethod
    def parse(cls, data: bytes) -> tuple[bytes, dict[str, Any]]:
        raise NotImplementedError


async def test_a_format_of_the_users_own_and_what_it_cannot_carry(
    broker: OutboxBroker, redis_server: RedisServer, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    redis = RedisBroker(redis_server.url, message_format=TextFormat, logger=None)
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    ids = await publishing.many(Outgoing(body, key="k") for body in (b"one", b"\xff", b"two"))
    await broker.start()
    await eventually(lambda: _all_failed(table))
    first, second = (json.loads(envelope) for envelope in await box.envelopes())
    assert (first["body"], second["body"]) == ("one", "two")
    assert first["headers"]["outbox-id"] == str(ids[0])
    [parked] = await table.rows()
    assert (parked.id, parked.failure_reason) == (ids[1], "invalid")
    assert "UnicodeDecodeError" in parked.last_exception


async def _all_failed(table: Table) -> bool:
    rows = await table.rows()
    return all(row.failed_at for row in rows)


async def test_a_channel_must_be_asked_for(make_broker: MakeBroker, redis: RedisBroker) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=redis.publisher(channel="news"))
    with pytest.raises(ConfigError, match="allow_lossy=True"):
        await broker.start()


async def test_a_channel_without_listeners_loses_what_it_is_given(
    broker: OutboxBroker, redis: RedisBroker, redis_key: str, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=redis.publisher(channel=redis_key), allow_lossy=True)
    await publishing.one(b"")
    await broker.start()
    await eventually(table.is_empty)


async def test_what_faststreams_own_writer_breaks_arrives_whole(
    broker: OutboxBroker, redis: RedisBroker, box: StreamBox, publishing: Publishing, table: Table
) -> None:
    """Its writer counts characters and its reader bytes."""
    headers = {"ä": "1", "b": "ü"}
    async with redis:
        await redis.publish(b"body", stream=box.name, headers=headers)
    [theirs] = await box.read()
    assert theirs.headers.get("b") != "ü"
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    await publishing.one(b"body", headers=headers)
    await broker.start()
    await eventually(table.is_empty)
    ours = (await box.read())[-1]
    assert ours.body == b"body"
    assert {name: ours.headers[name] for name in headers} == headers
