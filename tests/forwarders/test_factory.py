"""Which destination goes with a publisher, and what it is asked for."""

from typing import Any

import pytest
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.kafka import KafkaBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox._store.memory.positions import MemoryPositions
from faststream_outbox._values.cloudevents import kafka_headers, rabbit_headers
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.factory import Destinations, create_destinations
from faststream_outbox.forwarders.kinds import PositionKeeper

PUBLISHERS = {
    "kafka:orders": (KafkaBroker(acks="all", logger=None).publisher("orders"), 45.0),
    "rabbit:orders": (RabbitBroker(logger=None).publisher("orders"), 35.0),
    "redis:orders": (RedisBroker(logger=None).publisher(stream="orders"), 10.0),
}


def create(publisher: Any, **options: Any) -> Destinations:
    return create_destinations(publisher, lambda *_: None, **{"lanes": 2, "send_timeout": None} | options)


@pytest.mark.parametrize("name", PUBLISHERS)
def test_each_kind_has_a_name_a_time_out_one_health_and_a_destination_for_each_lane(name: str) -> None:
    publisher, seconds = PUBLISHERS[name]
    made = create(publisher)
    assert (made.name, made.health.name, made.send_timeout) == (name, f"destination {name}", seconds)
    assert len({id(lane) for lane in made.lanes}) == 2
    assert len({id(lane._suspects) for lane in made.lanes}) == 1, "they share them"  # type: ignore[attr-defined]
    assert create(publisher, send_timeout=1.5).send_timeout == 1.5


@pytest.mark.parametrize("publisher", [None, "orders", object(), KafkaBroker(logger=None)])
def test_anything_else_is_refused(publisher: Any) -> None:
    with pytest.raises(ConfigError, match="must be a publisher of another FastStream broker"):
        create(publisher)


def test_an_envelope_is_for_those_who_have_a_binding() -> None:
    for name, headers_of in (("kafka:orders", kafka_headers), ("rabbit:orders", rabbit_headers)):
        for envelope, expected in (("cloudevents", headers_of), (None, wire_headers)):
            [lane] = create(PUBLISHERS[name][0], lanes=1, envelope=envelope).lanes
            assert lane._settings.headers_of is expected  # type: ignore[attr-defined]
    for name, envelope, others in (
        ("redis:orders", "cloudevents", "Redis; leave it out, or forward to Kafka or RabbitMQ"),
        ("kafka:orders", "plain", "Kafka; leave it out, or forward to redis.publisher"),
        ("rabbit:orders", "plain", "RabbitMQ; leave it out, or forward to redis.publisher"),
    ):
        with pytest.raises(ConfigError, match=f"'{envelope}' is not for {others}"):
            create(PUBLISHERS[name][0], envelope=envelope)


@pytest.mark.parametrize("envelope", ["", "CloudEvents", "avro", True, 1])
def test_an_unknown_envelope_is_refused_at_registration(envelope: Any) -> None:
    engine = create_async_engine("postgresql+asyncpg://localhost/none")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    with pytest.raises(ConfigError, match="envelope: must be 'cloudevents' or 'plain', or left out, got"):
        broker.forwarder("orders", to=PUBLISHERS["kafka:orders"][0], envelope=envelope)


def test_rows_are_divided_by_kafka_and_not_by_routing_keys() -> None:
    """Of one routing key no row is in another one's way: to defer them would rewrite a whole backlog in vain."""
    assert {name: create(publisher).is_divided for name, (publisher, _) in PUBLISHERS.items()} == {
        "kafka:orders": True,
        "rabbit:orders": False,
        "redis:orders": False,
    }


def test_null_values_are_for_kafka() -> None:
    for tombstones in (True, False):
        [lane] = create(PUBLISHERS["kafka:orders"][0], lanes=1, tombstones=tombstones).lanes
        assert lane._settings.tombstones is tombstones  # type: ignore[attr-defined]
    confluent = ConfluentBroker(config={"message.timeout.ms": 1000}).publisher("orders")
    for publisher in (PUBLISHERS["rabbit:orders"][0], confluent):
        with pytest.raises(ConfigError, match=r"tombstones: a message to .* always has a value"):
            create(publisher, tombstones=True)


async def test_exactly_once_needs_a_table() -> None:
    engine = create_async_engine("postgresql+asyncpg://localhost/none")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    broker.forwarder("orders", to=PUBLISHERS["kafka:orders"][0], exactly_once=True)
    with pytest.raises(ConfigError, match=r"exactly_once: there is no table for positions; write OutboxBroker\("):
        await broker.start()
    await broker.stop()


def test_exactly_once_is_for_kafka_and_what_redis_keeps() -> None:
    keeper = PositionKeeper(lambda: "relay", MemoryPositions(set))
    confluent = ConfluentBroker(config={"message.timeout.ms": 1000}).publisher("orders")
    for publisher in (PUBLISHERS["rabbit:orders"][0], confluent):
        with pytest.raises(ConfigError, match=r"exactly_once: .* has no way to it; leave it out"):
            create(publisher, exactly_once=keeper)
    assert create(PUBLISHERS["kafka:orders"][0], exactly_once=keeper).lanes
    redis = RedisBroker()
    for publisher in (redis.publisher(stream="orders"), redis.publisher(list="orders")):
        assert create(publisher, exactly_once=keeper).lanes
    with pytest.raises(ConfigError, match=r"exactly_once: a channel keeps nothing.*write redis.publisher\(stream="):
        create(redis.publisher(channel="orders"), exactly_once=keeper, allow_lossy=True)


def test_what_expires_at_once_goes_to_rabbitmq_where_losses_are_allowed() -> None:
    publisher = RabbitBroker(logger=None).publisher("orders", expiration=0)
    with pytest.raises(ConfigError, match="allow_lossy=True"):
        create(publisher)
    assert create(publisher, allow_lossy=True)
