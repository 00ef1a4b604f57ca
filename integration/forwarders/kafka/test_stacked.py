"""FastStream's publishers over a handler: what it returns goes out with the identity of its row."""

from typing import Any

from faststream import BaseMiddleware
from faststream.kafka import KafkaBroker, KafkaResponse
from faststream.rabbit import RabbitBroker, RabbitResponse
from faststream.redis import RedisBroker

from faststream_outbox import ConstantRetry, OutboxBroker, OutboxRouter
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.rabbit import QueueBox
from integration.destinations.redis import StreamBox
from integration.forwarders.carrying import Publishing
from integration.servers.rabbitmq import RabbitServer
from integration.servers.redis import RedisServer

from .conftest import MakeBroker

HEADERS = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x": "inbound"}


async def test_on_kafka_every_attempt_carries_the_rows_key(
    make_broker: MakeBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    router = OutboxRouter()
    ended = 0

    class Stumbling(BaseMiddleware):
        async def after_processed(self, *_: Any) -> None:
            nonlocal ended
            ended += 1
            if ended == 1:
                # Kafka has the result by now, and the row is handled again all the same.
                raise RuntimeError

    @kafka.publisher(topic.name, headers={"of": "publisher"})
    @router.subscriber("orders", propagate_inbound_headers=True, retry_strategy=ConstantRetry(delay_seconds=0))
    async def handle(body: dict[str, int]) -> dict[str, int]:
        return {"doubled": 2 * body["n"]}

    broker = make_broker(middlewares=[Stumbling])
    broker.include_router(router)
    async with kafka:
        await broker.start()
        await publishing.one({"n": 1}, idempotency_key="order-1", headers=HEADERS, correlation_id="c")
        records = await topic.received(2)
        await eventually(table.is_empty)
        await broker.stop()
    assert [record.body for record in records] == [b'{"doubled":2}'] * 2
    assert records[0].headers == records[1].headers
    headers = records[0].headers
    assert headers["idempotency-key"] == "order-1"
    assert {**headers, **HEADERS, "of": "publisher", "correlation_id": "c"} == headers
    assert not {name for name in headers if name.startswith("outbox-")}, "those are the row's own"


async def test_what_a_response_says_wins_and_headers_stay_at_home_unless_asked_for(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    @kafka.publisher(topic.name)
    @broker.subscriber("orders")
    async def handle(body: int) -> Any:
        return KafkaResponse(body, headers={"idempotency-key": "mine"} if body else {"other": "x"}, key=b"k")

    async with kafka:
        await broker.start()
        await publishing.one(0, idempotency_key="row-0", headers=HEADERS)
        await publishing.one(1, idempotency_key="row-1", headers=HEADERS)
        records = await topic.received(2)
        await broker.stop()
    found = {record.body: record.headers for record in records}
    assert found[b"1"]["idempotency-key"] == "mine"
    assert (found[b"0"]["idempotency-key"], found[b"0"]["other"]) == ("row-0", "x")
    assert not any("x" in headers or "traceparent" in headers for headers in found.values())


async def test_publishers_of_several_brokers_over_one_handler(
    *,
    broker: OutboxBroker,
    kafka: KafkaBroker,
    topic: KafkaBox,
    rabbit_server: RabbitServer,
    redis_server: RedisServer,
    redis_key: str,
    publishing: Publishing,
    table: Table,
) -> None:
    rabbit, redis = RabbitBroker(rabbit_server.url, logger=None), RedisBroker(redis_server.url, logger=None)
    queue, box = rabbit_server.new_name(), StreamBox(redis_server, redis_key)

    @kafka.publisher(topic.name)
    @rabbit.publisher(queue)
    @redis.publisher(stream=redis_key)
    @broker.publisher("results")
    @broker.subscriber("orders", propagate_inbound_headers=True)
    async def handle(body: int) -> int:
        return body + 1

    async with QueueBox.declared(rabbit_server, queue) as mailbox, kafka, rabbit, redis:
        await broker.start()
        await publishing.one(1, idempotency_key="order-1", headers=HEADERS)
        [record] = await topic.received(1)
        [message] = await mailbox.messages(1)
        [in_redis] = await eventually(box.read)
        [result] = await eventually(lambda: _rows(table, "results"))
        await broker.stop()
    for headers in (record.headers, dict(message.headers), in_redis.headers):
        assert headers["idempotency-key"] == "order-1"
        assert {**headers, **HEADERS} == headers
    assert message.message_id == "order-1"
    assert (record.body, message.body, in_redis.body, bytes(result.payload)) == (b"2", b"2", b"2", b"2")
    assert result.idempotency_key != "order-1", "a row of its own"
    assert "idempotency-key" not in result.headers


async def test_a_message_id_of_the_response_stays(
    broker: OutboxBroker, rabbit_server: RabbitServer, publishing: Publishing
) -> None:
    rabbit, queue = RabbitBroker(rabbit_server.url, logger=None), rabbit_server.new_name()

    @rabbit.publisher(queue)
    @broker.subscriber("orders")
    async def handle(body: int) -> RabbitResponse:
        return (
            RabbitResponse(body, message_id="mine") if body else RabbitResponse(body, headers={"idempotency-key": "h"})
        )

    async with QueueBox.declared(rabbit_server, queue) as mailbox, rabbit:
        await broker.start()
        for body in (0, 1):
            await publishing.one(body, idempotency_key=f"row-{body}")
        messages = await mailbox.messages(2)
        await broker.stop()
    found = {m.body: (m.message_id, m.headers["idempotency-key"]) for m in messages}
    assert found == {b"0": ("h", "h"), b"1": ("mine", "row-1")}


async def test_messages_of_a_batch_are_not_made_one(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    @kafka.publisher(topic.name, batch=True)
    @broker.subscriber("orders")
    async def handle(body: int) -> list[int]:
        return [body, body + 1]

    async with kafka:
        await broker.start()
        await publishing.one(1)
        records = await topic.received(2)
        await broker.stop()
    assert all("idempotency-key" not in record.headers for record in records)


async def _rows(table: Table, queue: str) -> list[Any]:
    return [row for row in await table.rows() if row.queue == queue]
