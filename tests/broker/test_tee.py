"""Consumers of their own copies: which queues they take rows from, and what is refused."""

from typing import Any

import pytest
from faststream.kafka import KafkaBroker, KafkaRouter
from faststream.redis import RedisBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import (
    ConfigError,
    InvalidMessageError,
    OutboxBroker,
    OutboxResponse,
    OutboxRouter,
    TestOutboxBroker,
    make_outbox_table,
)
from faststream_outbox import fastapi as outbox_fastapi

NO_SESSION: Any = None


@pytest.fixture
def kafka() -> KafkaBroker:
    return KafkaBroker(acks="all")


def test_a_second_consumer_hears_of_tee(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    broker.subscriber("orders")
    with pytest.raises(ConfigError, match=r"'orders' has a consumer already.*tee=True"):
        broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    broker.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    assert broker.copies_of("orders") == ["orders=>kafka:orders.v1"]
    assert broker.copies_of("others") == ()


def test_each_has_copies_of_its_own_and_one_may_have_several_queues(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    redis = RedisBroker()
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    both = broker.forwarder(["orders", "emails"], to=kafka.publisher("all"), tee=True, name="archive")
    broker.forwarder("orders", to=redis.publisher(stream="orders"), tee=True)
    assert both.queues == ["orders", "emails"]
    assert both.taken_queues == ["orders=>archive", "emails=>archive"]
    assert broker.copies_of("orders") == ["orders=>archive", "orders=>redis:orders"]
    assert broker.copies_of("emails") == ["emails=>archive"]


def test_two_with_one_name_on_one_queue_are_refused(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    broker.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    with pytest.raises(ConfigError, match=r"'orders' has a forwarder with tee=True named 'kafka:orders.v1' already"):
        broker.forwarder(["emails", "orders"], to=kafka.publisher("orders.v1"), tee=True)
    broker.forwarder("emails", to=kafka.publisher("orders.v1"), tee=True)
    broker.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True, name="other")


async def test_routers_on_either_side_may_be_included_later(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    router, inner = OutboxRouter(prefix="shop-"), OutboxRouter(prefix="eu-")
    topics = KafkaRouter(prefix="v1.")
    broker.include_router(router)
    router.include_router(inner)
    forwarder = inner.forwarder("orders", to=topics.publisher("orders"), tee=True)
    with pytest.raises(ConfigError, match=r"not included in a broker; call broker\.include_router\(router\) before"):
        broker.copies_of("shop-eu-orders")
    with pytest.raises(ConfigError, match=r"not included in a broker; call broker\.include_router\(router\) before"):
        await broker.start()
    with pytest.raises(ConfigError, match=r"not included in a broker; call broker\.include_router\(router\) before"):
        await broker.publish("tea", queue="shop-eu-orders", session=None)  # type: ignore[arg-type]
    assert broker.copies_of("orders") == ()
    kafka.include_router(topics)
    assert forwarder.taken_queues == ["shop-eu-orders=>kafka:v1.orders"]
    assert broker.copies_of("shop-eu-orders") == forwarder.taken_queues
    # Later still, and with the same name: nothing could tell before.
    more_topics = KafkaRouter(prefix="v1.")
    inner.forwarder("orders", to=more_topics.publisher("orders"), tee=True)
    kafka.include_router(more_topics)
    with pytest.raises(ConfigError, match=r"named 'kafka:v1.orders' already"):
        await broker.start()
    with pytest.raises(ConfigError, match=r"named 'kafka:v1.orders' already"):
        broker.copies_of("shop-eu-orders")


def test_names_that_cannot_be(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    topic = kafka.publisher("orders.v1")
    with pytest.raises(ConfigError, match=r"name: the queue of copies 'orders=>nnn.*255"):
        broker.forwarder("orders", to=topic, tee=True, name="n" * 248)
    for name in ("", 7):
        with pytest.raises(ConfigError, match="name: must be a str"):
            broker.forwarder("orders", to=topic, tee=True, name=name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="to: must be a publisher"):
        broker.forwarder("orders", to="kafka", tee=True)
    with pytest.raises(ConfigError, match="acks"):
        broker.forwarder("orders", to=KafkaBroker().publisher("orders.v1"), tee=True)
    with pytest.raises(
        TypeError, match=r"forwarder\(\) got an unexpected keyword argument 'tea'; did you mean 'tee'\?"
    ):
        broker.forwarder("orders", to=topic, tea=True)  # type: ignore[call-arg]
    assert broker.forwarders == []


async def test_no_queue_of_a_user_looks_like_one_of_copies(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    for declare in (broker.subscriber, broker.publisher):
        with pytest.raises(ConfigError, match="queue: must not contain '=>'"):
            declare("orders=>archive")
    with pytest.raises(ConfigError, match="queue: must not contain '=>'"):
        broker.forwarder("orders=>archive", to=kafka.publisher("orders.v1"))
    with pytest.raises(InvalidMessageError, match="queue: must not contain '=>'"):
        await broker.publish("x", queue="orders=>archive", session=NO_SESSION)


@pytest.mark.parametrize("way", ["publish", "publish_batch", "publish_sync", "publisher", "response"])
async def test_every_way_of_publishing_makes_copies(broker: OutboxBroker, kafka: KafkaBroker, way: str) -> None:
    router = OutboxRouter()
    to_orders = router.publisher("orders")
    router.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    broker.include_router(router)

    @broker.subscriber("in")
    async def handle(body: str) -> OutboxResponse:
        return OutboxResponse(body, queue="orders", session=NO_SESSION)

    tester = TestOutboxBroker(broker)
    async with tester:
        match way:
            case "publish":
                assert await broker.publish("x", queue="orders", session=NO_SESSION) == 1
            case "publish_batch":
                assert len(await broker.publish_batch("x", queue="orders", session=NO_SESSION)) == 1
            case "publish_sync":
                assert broker.publish_sync("x", queue="orders", session=NO_SESSION) == 1
            case "publisher":
                assert await to_orders.publish("x", session=NO_SESSION) == 1
            case "response":
                await broker.publish("x", queue="in", session=NO_SESSION)
        rows = tester.store.rows
    # The declared publisher's mock has consumed the message itself, except where nothing could be awaited.
    copies = [row for row in rows if row.queue == "orders=>kafka:orders.v1"]
    assert len(copies) == 1
    assert [row.queue for row in rows if row not in copies] == (["orders"] if way == "publish_sync" else [])


async def test_a_timer_is_cancelled_with_its_copies(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    from datetime import timedelta

    broker.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    tester = TestOutboxBroker(broker)
    async with tester:
        timer: Any = {"queue": "orders", "timer_id": "t", "session": NO_SESSION}
        await broker.publish("x", **timer, activate_in=timedelta(hours=1))
        assert len(tester.store.rows) == 2
        assert await broker.publish("x", **timer) is None
        assert await broker.cancel_timer(**timer)
        assert tester.store.rows == []


def test_the_router_for_fastapi_has_it_too(engine: AsyncEngine, kafka: KafkaBroker) -> None:
    router = outbox_fastapi.OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()))
    router.subscriber("orders")
    router.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    assert router.broker.copies_of("orders") == ["orders=>kafka:orders.v1"]
