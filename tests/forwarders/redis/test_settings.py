"""What is taken over from a publisher and its broker, and what is refused."""

import pytest
from faststream.redis import (
    ListSub,
    PubSub,
    RedisBroker,
    RedisClusterBroker,
    RedisRouter,
    RedisSentinelBroker,
    StreamSub,
)
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from faststream_outbox._faststream.redis import SentinelAddress
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.redis.settings import RedisSettings


@pytest.fixture
def broker() -> RedisBroker:
    return RedisBroker("redis://user:secret@localhost:1234/5", logger=None)


def test_a_stream(broker: RedisBroker) -> None:
    settings = RedisSettings.of(broker.publisher(stream=StreamSub("orders", maxlen=10)))
    assert settings.command == ("XADD", "orders", "MAXLEN", "~", 10, "*", "__data__")
    assert (settings.address, settings.holds) == ("orders", b"stream")
    options = settings.client_options
    assert (options["host"], options["port"], options["db"]) == ("localhost", 1234, 5)
    assert (options["username"], options["password"]) == ("user", "secret")


@pytest.mark.parametrize("where", ["orders", ListSub("orders"), ListSub("orders", batch=True)])
def test_a_list(broker: RedisBroker, where: str | ListSub) -> None:
    settings = RedisSettings.of(broker.publisher(list=where))
    assert settings.command == ("RPUSH", "orders")
    assert settings.holds == b"list"


def test_a_channel(broker: RedisBroker) -> None:
    publisher = broker.publisher("orders")
    with pytest.raises(ConfigError, match=r"redis\.publisher\(stream=\.\.\.\), or allow_lossy=True"):
        RedisSettings.of(publisher)
    settings = RedisSettings.of(publisher, allow_lossy=True)
    assert settings.command == ("PUBLISH", "orders")
    assert settings.holds is None


@pytest.mark.parametrize("channel", ["logs.*", "logs.{level}", PubSub("logs", pattern=True)])
def test_a_pattern_is_no_address(broker: RedisBroker, channel: str | PubSub) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        RedisSettings.of(broker.publisher(channel), allow_lossy=True)


def test_prefixes(broker: RedisBroker) -> None:
    router = RedisRouter(prefix="shop.")
    publisher = router.publisher(stream="orders")
    with pytest.raises(ConfigError, match="not included"):
        RedisSettings.of(publisher)
    broker.include_router(router)
    assert RedisSettings.of(publisher).address == "shop.orders"


def test_a_cluster_is_refused() -> None:
    publisher = RedisClusterBroker("redis://localhost", logger=None).publisher(stream="orders")
    with pytest.raises(ConfigError, match="RedisClusterBroker"):
        RedisSettings.of(publisher)


def test_a_sentinel() -> None:
    broker = RedisSentinelBroker(
        sentinels=[("one", 1), ("two", 2)],
        sentinel_master_name="shop",
        sentinel_kwargs={"password": "s"},
        db=3,
        logger=None,
    )
    settings = RedisSettings.of(broker.publisher(stream="orders"))
    assert settings.sentinel == SentinelAddress([("one", 1), ("two", 2)], "shop", {"password": "s"})
    assert "host" not in settings.client_options
    assert settings.client_options["db"] == 3


def test_headers_are_text(broker: RedisBroker) -> None:
    settings = RedisSettings.of(broker.publisher(stream="orders", headers={"a": "ü"}, reply_to="answers"))
    assert settings.headers == {"a": "ü", "reply_to": "answers"}
    with pytest.raises(ConfigError, match="'a': 1"):
        RedisSettings.of(broker.publisher(stream="orders", headers={"a": 1}))


def test_retries_of_the_brokers_own_are_left_out() -> None:
    broker = RedisBroker(
        retry=Retry(ConstantBackoff(1), 3),
        retry_on_timeout=True,
        retry_on_error=[OSError],
        max_connections=1,
        logger=None,
    )
    options = RedisSettings.of(broker.publisher(stream="orders")).client_options
    assert not {name for name in options if "retry" in name or name == "max_connections"}


@pytest.mark.parametrize(
    ("given", "response", "usual"), [({}, 5.0, 5.0), ({"socket_timeout": 2.0}, 2.0, 2.0), (None, None, 30.0)]
)
def test_time_outs(given: dict[str, float] | None, response: float | None, usual: float) -> None:
    options = {"socket_timeout": None} if given is None else given
    settings = RedisSettings.of(RedisBroker(logger=None, **options).publisher(stream="orders"))
    assert (settings.response_timeout, settings.usual_timeout) == (response, usual)


def test_a_plain_entry_has_fields_of_its_own(broker: RedisBroker) -> None:
    settings = RedisSettings.of(broker.publisher(stream=StreamSub("orders", maxlen=10)), is_plain=True)
    assert settings.message_format is None
    assert settings.command_to(None) == ("XADD", "orders", "MAXLEN", "~", 10, "*", "body")
    assert settings.command_to("other", (b"a", b"b"))[-4:] == ("*", b"a", b"b", "body")


def test_only_a_stream_has_fields(broker: RedisBroker) -> None:
    for publisher in (broker.publisher(list="orders"), broker.publisher(channel="orders")):
        with pytest.raises(ConfigError, match="envelope: 'plain' is for the fields of a stream's entry"):
            RedisSettings.of(publisher, allow_lossy=True, is_plain=True)
    with pytest.raises(ConfigError, match="the field 'body' has the body"):
        RedisSettings.of(broker.publisher(stream="orders", headers={"body": "x"}), is_plain=True)
