"""What knows a password, and what may be printed, logged or shown of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faststream.confluent import KafkaBroker as ConfluentBroker
from faststream.kafka import KafkaBroker
from faststream.mqtt import MQTTBroker, QoS
from faststream.nats import NatsBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker, RedisSentinelBroker
from faststream.security import SASLPlaintext
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.any_broker import link
from faststream_outbox.forwarders.factory import Destinations, create_destinations

SECRET = "open-sesame"
HEADERS = {"authorization": SECRET}


def kafka() -> Any:
    security = SASLPlaintext("shop", SECRET)
    return KafkaBroker("localhost:1", acks="all", security=security, logger=None).publisher("t", headers=HEADERS)


def rabbit() -> Any:
    return RabbitBroker(f"amqp://shop:{SECRET}@localhost:1/", logger=None).publisher("q", headers=HEADERS)


def redis() -> Any:
    return RedisBroker(f"redis://shop:{SECRET}@localhost:1", logger=None).publisher(stream="s", headers=HEADERS)


def sentinel() -> Any:
    broker = RedisSentinelBroker(
        sentinels=[("localhost", 1)],
        sentinel_master_name="shop",
        sentinel_kwargs={"password": SECRET},
        password=SECRET,
        logger=None,
    )
    return broker.publisher(stream="s", headers=HEADERS)


def nats() -> Any:
    return NatsBroker(f"nats://shop:{SECRET}@localhost:1", logger=None).publisher("s", stream="s", headers=HEADERS)


def confluent() -> Any:
    config = {"message.timeout.ms": 1000}
    security = SASLPlaintext("shop", SECRET)
    broker = ConfluentBroker("localhost:1", security=security, config=config, logger=None)
    return broker.publisher("t", headers=HEADERS)


def mqtt() -> Any:
    broker = MQTTBroker("localhost", security=SASLPlaintext("shop", SECRET), logger=None)
    return broker.publisher("t", qos=QoS.AT_LEAST_ONCE, headers=HEADERS)


KINDS = pytest.mark.parametrize("publisher", [kafka, rabbit, redis, sentinel, nats, confluent, mqtt])


def create(publisher: Any) -> Destinations:
    return create_destinations(publisher, lambda *_: None, lanes=2, send_timeout=None)


def ours(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Everything of this package that is reached from a thing, and the tuples between."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, list | tuple):
        parts = list(thing)
    elif type(thing).__module__.startswith("faststream_outbox"):
        yield thing
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [getattr(thing, name, None) for name in slots] + list(getattr(thing, "__dict__", {}).values())
    else:
        return
    for part in parts:
        yield from ours(part, seen)


def tells(thing: Any) -> bool:
    return SECRET in f"{thing!r} {thing!s}"


@KINDS
def test_nothing_that_can_be_printed_has_a_password(publisher: Callable[[], Any]) -> None:
    found = [*ours(create(publisher()), set())]
    assert any(type(each).__name__.endswith(("Settings", "Outlet")) for each in found), "it looks deep enough"
    assert [type(each).__name__ for each in found if tells(each)] == []


@KINDS
async def test_no_forwarder_and_no_broker_tells(publisher: Callable[[], Any]) -> None:
    engine = create_async_engine(f"postgresql+asyncpg://shop:{SECRET}@localhost:1/shop")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    forwarder = broker.forwarder("orders", to=publisher())
    found = [*ours([broker, broker.config, *broker.config.configs, forwarder, await forwarder.status()], set())]
    assert [type(each).__name__ for each in found if tells(each)] == []


@pytest.mark.parametrize("publisher", [kafka, rabbit, redis, sentinel, nats, mqtt])
async def test_that_nobody_answers_is_said_without_the_password(
    publisher: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two clients try for longer; what is said then is the same.
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.5)
    [destination, _] = create(publisher()).lanes
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each client has its own
            await destination.connect()
    finally:
        await destination.close()
    error: BaseException | None = caught.value
    while error is not None:
        assert not tells(error)
        error = error.__cause__ or error.__context__


def test_an_address_in_place_of_a_publisher_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"got str$") as caught:
        create(f"amqp://shop:{SECRET}@localhost")
    assert not tells(caught.value)
