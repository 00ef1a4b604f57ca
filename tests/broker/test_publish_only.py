"""A broker that only publishes refuses consumers by name, and starts nothing."""

import asyncio
from typing import Any

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConfigError, OutboxBroker, OutboxRouter, TestOutboxBroker, make_outbox_table
from faststream_outbox.fastapi import OutboxRouter as FastAPIRouter


def arguments() -> dict[str, Any]:
    engine = create_async_engine("postgresql+asyncpg://nowhere.invalid/shop")
    return {"engine": engine, "outbox_table": make_outbox_table(MetaData()), "publish_only": True, "logger": None}


@pytest.fixture
def broker() -> OutboxBroker:
    return OutboxBroker(**arguments())


async def handle(body: str) -> None: ...


def test_a_subscriber_is_refused(broker: OutboxBroker) -> None:
    with pytest.raises(
        ConfigError, match=r"^subscriber of orders, paid: this broker only publishes \(publish_only=True"
    ):
        broker.subscriber(["orders", "paid"])
    assert not broker.subscribers


def test_a_forwarder_is_refused(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match=r"^forwarder of orders: this broker only publishes"):
        broker.forwarder("orders", to=RedisBroker().publisher(stream="s"))
    assert not broker.forwarders


def test_a_router_with_a_consumer_is_refused(broker: OutboxBroker) -> None:
    router = OutboxRouter(prefix="shop-")
    router.subscriber("orders")(handle)
    with pytest.raises(ConfigError, match=r"^subscriber of shop-orders: this broker only publishes"):
        broker.include_router(router)


def test_a_router_that_is_included_gets_no_consumer(broker: OutboxBroker) -> None:
    router = OutboxRouter()
    broker.include_router(router)
    with pytest.raises(ConfigError, match=r"^subscriber of orders: this broker only publishes"):
        router.subscriber("orders")


def test_on_fastapi_a_subscriber_is_refused() -> None:
    router = FastAPIRouter(**arguments())
    with pytest.raises(ConfigError, match=r"^subscriber of orders: this broker only publishes"):
        router.subscriber("orders")(handle)


def test_what_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^publish_only: must be True or False, got 'no'"):
        OutboxBroker(**{**arguments(), "publish_only": "no"})


async def test_it_starts_nothing(broker: OutboxBroker) -> None:
    forwarder = broker.forwarder("orders", to=RedisBroker().publisher(stream="s"), tee=True, name="s")
    before = asyncio.all_tasks()
    await broker.start()
    late = broker.forwarder("paid", to=RedisBroker().publisher(stream="s"), tee=True, name="s")
    assert broker.running
    assert asyncio.all_tasks() == before
    assert broker.engine.pool.checkedin() + broker.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert broker.copies_of("orders") == ["orders=>s"]
    assert (broker.is_idle, broker.stalled, broker.consumers) == (False, (), [])
    assert await broker.unconsumed_queues() is None
    health = await broker.health(timeout=0.5)
    assert (health.is_live, dict(health.forwarders)) == (True, {})
    assert "not started" not in " ".join(health.problems)
    await broker.stop()
    assert not broker.running
    assert {forwarder.state, late.state} == {"stopped"}


async def test_a_test_of_it_keeps_what_it_publishes(broker: OutboxBroker) -> None:
    async with TestOutboxBroker(broker) as test_broker:
        await test_broker.publish("body", queue="orders", session=None)
