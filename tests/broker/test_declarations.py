"""What cannot work is refused when it is declared, with the option's name in the message."""

from typing import Any

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaRouter
from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tenacity.stop import stop_after_attempt
from tenacity.wait import wait_fixed

from faststream_outbox import ConfigError, ConstantRetry, InvalidMessageError, NoRetry, OutboxBroker, OutboxRouter
from faststream_outbox.broker.options import BrokerOptions
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.retry import DEFAULT_RETRY, TenacityRetry
from faststream_outbox.subscriber.options import SubscriberOptions

BAD_SUBSCRIBER_OPTIONS = [
    ("max_workers", 0),
    ("max_workers", -1),
    ("max_workers", 2.0),
    ("max_workers", "4"),
    ("max_workers", True),
    ("max_workers", None),
    ("fetch_batch_size", 0),
    ("fetch_batch_size", 1.5),
    ("fetch_batch_size", 2**31),
    ("min_fetch_interval", 0),
    ("min_fetch_interval", float("nan")),
    ("min_fetch_interval", "1"),
    ("max_fetch_interval", 0.5),
    ("max_fetch_interval", float("inf")),
    ("lease_ttl_seconds", 0),
    ("lease_ttl_seconds", float("inf")),
    ("lease_ttl_seconds", None),
    ("max_deliveries", 0),
    ("max_deliveries", 1.5),
    ("ack_policy", AckPolicy.ACK_FIRST),
    ("ack_policy", "manual"),
    ("retry_strategy", 5),
    ("retry_strategy", NoRetry),
    ("retry_strategy", (stop_after_attempt(1), wait_fixed(1))),
]


@pytest.mark.parametrize(("option", "value"), BAD_SUBSCRIBER_OPTIONS)
def test_a_bad_option_of_a_subscriber_is_named(broker: OutboxBroker, option: str, value: Any) -> None:
    # A swapped pair is named after its parts.
    name = "wait" if isinstance(value, tuple) else option
    with pytest.raises(ConfigError, match=name):
        broker.subscriber("orders", **{option: value})
    assert broker.subscribers == []


BAD_FORWARDER_OPTIONS = [
    ("batch_size", 0, "an integer from 1 to 2147483647"),
    ("batch_size", 2.5, "an integer from 1 to 2147483647"),
    ("batch_bytes", 0, "an integer from 1 to 2147483647"),
    ("batch_bytes", 1e6, "an integer from 1 to 2147483647"),
    ("batch_bytes", 2**31, "an integer from 1 to 2147483647"),
    ("lanes", 0, "an integer from 1 to 32"),
    ("lanes", 33, "an integer from 1 to 32"),
    ("lanes", 0.5, "an integer from 1 to 32"),
    ("lanes", "2", "an integer from 1 to 32"),
    ("lanes", True, "an integer from 1 to 32"),
    ("lanes", None, "an integer from 1 to 32"),
    ("send_timeout", 0, "a number of seconds from 0.01 to 604800"),
    ("send_timeout", "5", "a number of seconds from 0.01 to 604800"),
    ("send_timeout", float("inf"), "a number of seconds from 0.01 to 604800"),
    ("min_fetch_interval", 0, "a number of seconds from 0.01 to 604800"),
    ("min_fetch_interval", float("nan"), "a number of seconds from 0.01 to 604800"),
    ("max_fetch_interval", 0.5, "a number of seconds from 1 to 604800"),
    ("max_fetch_interval", float("inf"), "a number of seconds from 1 to 604800"),
    ("tee", "yes", "True or False"),
    ("hold_key", 1, "True or False"),
    ("allow_lossy", None, "True or False"),
]


@pytest.mark.parametrize(("option", "value", "allowed"), BAD_FORWARDER_OPTIONS)
def test_a_bad_option_of_a_forwarder_is_named(broker: OutboxBroker, option: str, value: Any, allowed: str) -> None:
    to = KafkaBroker(acks="all", logger=None).publisher("orders.v1")
    with pytest.raises(ConfigError) as raised:
        broker.forwarder(["orders", "refunds"], to=to, **{option: value})
    assert str(raised.value) == f"{option}: must be {allowed}, got {value!r}"
    assert broker.forwarders == []


def test_options_of_a_forwarder_may_go_to_their_limits(broker: OutboxBroker) -> None:
    to = KafkaBroker(acks="all", logger=None).publisher("orders.v1")
    broker.forwarder(
        ["orders", "refunds"],
        to=to,
        batch_size=1,
        batch_bytes=2**31 - 1,
        lanes=32,
        send_timeout=0.01,
        min_fetch_interval=2,
        max_fetch_interval=2,
        hold_key=True,
    )
    broker.forwarder("orders", to=to, tee=True, allow_lossy=True, send_timeout=None, max_fetch_interval=604_800)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, DEFAULT_RETRY),
        (NoRetry(), NoRetry()),
        (ConstantRetry(delay_seconds=3), ConstantRetry(delay_seconds=3)),
    ],
)
def test_a_retry_strategy_is_taken_as_it_is_and_none_is_the_default(
    broker: OutboxBroker, value: Any, expected: Any
) -> None:
    assert broker.subscriber("orders", retry_strategy=value)._config.retry_strategy == expected


def test_a_pair_of_tenacity_objects_becomes_a_strategy(broker: OutboxBroker) -> None:
    wait, stop = wait_fixed(1), stop_after_attempt(2)
    assert broker.subscriber("orders", retry_strategy=(wait, stop))._config.retry_strategy == TenacityRetry(
        wait=wait, stop=stop
    )


@pytest.mark.parametrize(
    "queues", ["", "q" * 256, "a\x00", "\ud800", 7, None, b"orders", [], ["a", "a"], ["a", 7], [["a"]]]
)
def test_a_queue_that_no_row_could_have_is_refused(broker: OutboxBroker, queues: Any) -> None:
    with pytest.raises(ConfigError, match="queue"):
        broker.subscriber(queues)
    with pytest.raises(ConfigError, match="queue"):
        broker.publisher(queues)


def test_a_publisher_has_one_queue(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match="queue: must be a str, got list"):
        broker.publisher(["a", "b"])  # type: ignore[arg-type]


def test_headers_of_a_publisher_are_a_mapping(broker: OutboxBroker) -> None:
    with pytest.raises(InvalidMessageError, match="headers: must be a mapping"):
        broker.publisher("a", headers="x")  # type: ignore[arg-type]


def test_a_second_consumer_of_a_queue_is_refused(broker: OutboxBroker) -> None:
    broker.subscriber(["a", "b"])
    with pytest.raises(ConfigError, match="'b' has a consumer already"):
        broker.subscriber(["b", "c"])
    broker.subscriber("c")
    broker.publisher("a")


async def test_a_second_consumer_of_a_queue_is_found_through_routers_and_prefixes(broker: OutboxBroker) -> None:
    broker.subscriber("shop-orders")
    router = OutboxRouter(prefix="shop-")
    router.subscriber("orders")
    with pytest.raises(ConfigError, match="'shop-orders' has a consumer already"):
        broker.include_router(router)


async def test_a_second_consumer_that_a_router_gets_later_is_found_at_the_start(broker: OutboxBroker) -> None:
    broker.subscriber("shop-orders")
    router = OutboxRouter(prefix="shop-")
    broker.include_router(router)
    router.subscriber("orders")
    with pytest.raises(ConfigError, match="'shop-orders' has a consumer already"):
        await broker.start()
    assert not broker.running


def test_a_router_of_another_broker_is_refused(broker: OutboxBroker) -> None:
    with pytest.raises(TypeError, match="must be an OutboxRouter of faststream_outbox, got KafkaRouter"):
        broker.include_router(KafkaRouter())  # type: ignore[arg-type]


@pytest.mark.parametrize("declare", ["subscriber", "publisher"])
def test_an_option_that_does_not_exist_is_refused(broker: OutboxBroker, declare: str) -> None:
    with pytest.raises(TypeError, match=rf"{declare}\(\) got an unexpected keyword argument 'max_wokers'"):
        getattr(broker, declare)("orders", max_wokers=4)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("gracefull_timeout", "; did you mean 'graceful_timeout'?"),
        ("dlq_tabel", "; did you mean 'dlq_table'?"),
        ("zzz", ""),
    ],
)
def test_an_option_of_the_broker_that_does_not_exist_is_refused(
    engine: AsyncEngine, outbox_table: Table, option: str, meant: str
) -> None:
    with pytest.raises(TypeError) as refused:
        OutboxBroker(engine, outbox_table=outbox_table, **{option: 1})
    assert str(refused.value) == f"OutboxBroker() got an unexpected keyword argument {option!r}{meant}"


def test_the_option_that_was_probably_meant_is_named(broker: OutboxBroker) -> None:
    with pytest.raises(TypeError, match=r"; did you mean 'max_workers'\?$"):
        broker.subscriber("orders", max_wokers=4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_payload_bytes", 0),
        ("max_payload_bytes", 1.5),
        ("max_payload_bytes", None),
        ("graceful_timeout", -1),
        ("graceful_timeout", float("inf")),
        ("graceful_timeout", float("nan")),
        ("graceful_timeout", "5"),
        ("listen_engine", "postgresql+asyncpg://"),
    ],
)
def test_a_bad_option_of_the_broker_is_named(engine: AsyncEngine, outbox_table: Table, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        OutboxBroker(engine, outbox_table=outbox_table, **{option: value})


async def test_an_engine_that_is_not_asyncpgs_is_refused(engine: AsyncEngine, outbox_table: Table) -> None:
    psycopg = create_async_engine("postgresql+psycopg://localhost/shop")
    wrong: dict[str, Any] = {"AsyncEngine, as create_async_engine makes it, got Engine": engine.sync_engine}
    wrong["postgresql\\+asyncpg, got postgresql\\+psycopg"] = psycopg
    wrong["got str"] = "postgresql+asyncpg://localhost/shop"
    for message, other in wrong.items():
        with pytest.raises(ConfigError, match=f"^engine: .*{message}"):
            OutboxBroker(other, outbox_table=outbox_table)
    with pytest.raises(ConfigError, match=r"^listen_engine: "):
        OutboxBroker(engine, outbox_table=outbox_table, listen_engine=psycopg)
    await psycopg.dispose()


def test_tables_that_the_factories_did_not_make_are_refused(
    engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> None:
    with pytest.raises(ConfigError, match="outbox_table: must be a Table, as make_outbox_table makes it, got str"):
        OutboxBroker(engine, outbox_table="outbox")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"outbox_table: 'outbox_dlq' lacks .*acquired_token.*make_outbox_table"):
        OutboxBroker(engine, outbox_table=dlq_table)
    with pytest.raises(ConfigError, match="dlq_table: 'other' lacks id, queue"):
        OutboxBroker(engine, outbox_table=outbox_table, dlq_table=Table("other", MetaData()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, AckPolicy.NACK_ON_ERROR),
        ({"ack_policy": None}, AckPolicy.NACK_ON_ERROR),
        ({"ack_policy": AckPolicy.ACK}, AckPolicy.ACK),
    ],
)
def test_the_ack_policy_comes_from_the_subscriber_or_the_broker(
    engine: AsyncEngine, outbox_table: Table, options: Any, expected: AckPolicy
) -> None:
    assert OutboxBroker(engine, outbox_table=outbox_table, **options).subscriber("a").ack_policy is expected
    rejecting = OutboxBroker(engine, outbox_table=outbox_table, ack_policy=AckPolicy.REJECT_ON_ERROR)
    own = options.get("ack_policy") or AckPolicy.REJECT_ON_ERROR
    assert rejecting.subscriber("a", **options).ack_policy is own


def test_every_option_has_a_line_that_says_what_it_means() -> None:
    """IDEs show it; the source is the only place where options are written."""
    import inspect

    for options in (BrokerOptions, SubscriberOptions, PublisherOptions):
        classes = [options, *options.__orig_bases__] if hasattr(options, "__orig_bases__") else [options]
        sources = "".join(inspect.getsource(inspect.getmodule(each)) for each in classes if inspect.getmodule(each))
        for name in options.__optional_keys__:
            assert f"    {name}: " in sources
            assert '"""' in sources.split(f"    {name}: ", 1)[1].split("\n")[1], name
