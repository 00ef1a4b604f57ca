"""What a forwarder takes over from a publisher, and what it refuses when the broker starts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, KafkaRouter
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConfigError, OutboxBroker, make_outbox_table
from faststream_outbox.forwarders.factory import create_destinations
from faststream_outbox.forwarders.kafka.settings import KafkaSettings


def log(*_: Any) -> None: ...


def kafka(**options: Any) -> KafkaBroker:
    return KafkaBroker("kafka:9092", **({"acks": "all"} | options))


@pytest.fixture
async def broker() -> AsyncIterator[OutboxBroker]:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None, graceful_timeout=0.0)
    yield broker
    await broker.stop()
    await engine.dispose()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"acks": 1}, "acks=1"),
        ({"acks": 0}, "acks=0"),
        ({}, "default"),
        ({"acks": 1, "enable_idempotence": True}, "=1"),
    ],
)
async def test_unsafe_acks_are_refused_when_the_broker_starts(
    options: dict[str, Any], shown: str, broker: OutboxBroker
) -> None:
    broker.forwarder("orders", to=KafkaBroker("kafka:9092", **options).publisher("orders.v1"))
    with pytest.raises(ConfigError, match=rf"to: .*{shown}.*acks='all'"):
        await broker.start()
    assert not broker.running


@pytest.mark.parametrize("options", [{"acks": "all"}, {"acks": -1}, {"enable_idempotence": True}], ids=repr)
def test_safe_acks(options: dict[str, Any]) -> None:
    KafkaSettings.of(KafkaBroker("kafka:9092", **options).publisher("orders.v1"))


async def test_a_batch_publisher_is_refused(broker: OutboxBroker) -> None:
    broker.forwarder("orders", to=kafka().publisher("orders.v1", batch=True))
    with pytest.raises(ConfigError, match="without batch=True"):
        await broker.start()


@pytest.mark.parametrize("to", ["orders.v1", None, kafka()], ids=["text", "nothing", "broker"])
def test_what_is_no_publisher_is_refused(to: Any) -> None:
    with pytest.raises(ConfigError, match=r"to: must be a publisher"):
        create_destinations(to, log, lanes=1, send_timeout=None)


def test_a_publisher_of_a_router_that_stands_nowhere_is_refused() -> None:
    router = KafkaRouter()
    with pytest.raises(ConfigError, match="not included in a broker"):
        KafkaSettings.of(router.publisher("orders.v1"))


@pytest.mark.parametrize(
    ("publisher", "message"),
    [({"key": "text"}, r"key must be bytes, got str; write key=b'text'"), ({"headers": {"x": 1}}, "mapping of str")],
)
def test_what_no_record_can_carry_is_refused(publisher: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KafkaSettings.of(kafka().publisher("orders.v1", **publisher))


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(ConfigError, match="compression_type='lzma'"):
        KafkaSettings.of(kafka(compression_type="lzma").publisher("orders.v1"))


def test_a_second_consumer_on_a_queue_is_refused(broker: OutboxBroker) -> None:
    publisher = kafka().publisher("orders.v1")
    broker.forwarder(["orders", "refunds"], to=publisher)
    with pytest.raises(ConfigError, match="'refunds' has a consumer already"):
        broker.forwarder("refunds", to=publisher)
    with pytest.raises(ConfigError, match="'orders' has a consumer already"):
        broker.subscriber("orders")


def test_everything_comes_from_the_publisher_and_its_broker() -> None:
    router = KafkaRouter(prefix="shop.")
    publisher = router.publisher("orders", key=b"k", partition=2, headers={"a": "ä"}, reply_to="answers")
    broker = kafka(request_timeout_ms=7000, client_id="me", max_request_size=50_000, compression_type="gzip")
    broker.include_router(router)
    settings = KafkaSettings.of(publisher)
    assert settings.topic == "shop.orders"
    assert (settings.key, settings.partition) == (b"k", 2)
    assert settings.headers == {"a": "ä".encode(), "reply_to": b"answers"}
    assert settings.compression == 1
    assert (settings.batch_bytes, settings.max_record_bytes) == (50_000, 50_000)
    assert settings.client_options["client_id"] == "me"
    assert settings.client_options["bootstrap_servers"] == ["kafka:9092"]
    made = create_destinations(publisher, log, lanes=3, send_timeout=None)
    assert (made.name, made.send_timeout, len(made.lanes)) == ("kafka:shop.orders", 12.0, 3)
    assert made.health.name == "destination kafka:shop.orders"
