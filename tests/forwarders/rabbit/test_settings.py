"""What is taken over from a publisher, and what is refused."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue, RabbitRouter

from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings

NOT_FOR_EVERY_QUEUE: list[Any] = [object(), None, {"a": "b"}, ["a"], datetime.now(UTC), b"x", Decimal(1)]
URL = "amqp://shop:secret@rabbit:5673/vhost"


def settings_of(*arguments: Any, broker: RabbitBroker | None = None, **options: Any) -> RabbitSettings:
    return RabbitSettings.of((broker or RabbitBroker(URL, logger=None)).publisher(*arguments, **options))


def test_address_and_time_outs() -> None:
    settings = settings_of("emails")
    assert (settings.exchange.name, settings.routing_key, settings.address) == ("", "emails", "emails")
    assert (settings.url.host, settings.url.port, settings.url.user, settings.url.path) == (
        "rabbit",
        5673,
        "shop",
        "/vhost",
    )
    assert (settings.connect_timeout, settings.confirm_timeout) == (10.0, 30.0)
    settings = settings_of("emails", timeout=3.0, broker=RabbitBroker(URL, timeout=2.0, logger=None))
    assert (settings.connect_timeout, settings.confirm_timeout) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"queue": RabbitQueue("q", routing_key="r")}, "r"),
        ({"queue": "q", "exchange": "e"}, "e:q"),
        ({"exchange": RabbitExchange("e"), "routing_key": "r"}, "e:r"),
        ({"exchange": "e"}, "e"),
    ],
)
def test_exchange_and_routing_key(options: dict[str, Any], address: str) -> None:
    assert settings_of(**options).address == address


def test_a_routers_prefix() -> None:
    router = RabbitRouter(prefix="shop.")
    publisher = router.publisher("emails")
    with pytest.raises(ConfigError, match="not included"):
        RabbitSettings.of(publisher)
    RabbitBroker(URL, logger=None).include_router(router)
    assert RabbitSettings.of(publisher).routing_key == "shop.emails"


def test_what_is_mended() -> None:
    broker = RabbitBroker(URL, default_channel=Channel(publisher_confirms=False, on_return_raises=False), logger=None)
    settings = settings_of("emails", persist=False, broker=broker)
    assert "persist" not in settings.properties


def test_properties() -> None:
    broker = RabbitBroker(URL, app_id="shop", logger=None)
    settings = settings_of(
        "emails",
        broker=broker,
        content_type="text/x",
        priority=3,
        expiration=timedelta(seconds=1.5),
        user_id="shop",
        reply_to="r",
    )
    assert settings.content_type == "text/x"
    assert settings.properties == {
        "priority": 3,
        "expiration": "1500",
        "user_id": "shop",
        "reply_to": "r",
        "app_id": "shop",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mandatory": False}, "alternate exchange"),
        ({"immediate": True}, "leave it out"),
        ({"user_id": "bob"}, "write user_id='shop'"),
        ({"priority": 256}, "0 to 255"),
        ({"expiration": -1}, "negative"),
        ({"expiration": float("nan")}, "negative"),
        ({"expiration": datetime.now(UTC)}, "seconds or a timedelta"),
        ({"headers": {"x": float("nan")}}, "closes the connection"),
        ({"headers": {"CC": "other"}}, "list of routing keys"),
        ({"headers": {"x" * 256: "y"}}, "256 bytes"),
        *(({"headers": {"x": value}}, "'x' must be text, a number, True or False") for value in NOT_FOR_EVERY_QUEUE),
        ({"headers": {"x": 2**63}}, "cannot carry"),
        ({"headers": {"x": 1e300}}, "cannot carry"),
        ({"expiration": 0}, "allow_lossy=True"),
        ({"expiration": timedelta(microseconds=900)}, "allow_lossy=True"),
        ({"exchange": RabbitExchange("later", type=ExchangeType.X_DELAYED_MESSAGE)}, "x-delayed-message"),
        ({"content_type": "x" * 256}, "cannot carry"),
        ({"routing_key": "ü" * 128}, "at most 255 bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings_of("emails", **options)


def test_a_publisher_without_any_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"write rabbit\.publisher"):
        settings_of()


def test_headers_that_select_more_queues_are_taken() -> None:
    assert settings_of("emails", headers={"CC": ["audit"]}).headers == {"CC": ["audit"]}


def test_headers_that_every_kind_of_queue_can_carry_are_taken() -> None:
    headers = {"text": "x", "whole": 2**63 - 1, "part": 0.5, "yes": True}
    assert settings_of("emails", headers=headers).headers == headers


def test_messages_may_expire_at_once_where_they_may_be_lost() -> None:
    publisher = RabbitBroker(URL, logger=None).publisher("emails", expiration=0)
    assert RabbitSettings.of(publisher, allow_lossy=True).properties["expiration"] == "0"
