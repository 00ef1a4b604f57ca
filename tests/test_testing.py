"""`TestOutboxBroker`: an application under test without a database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from unittest import mock

import pytest
from asgi_lifespan import LifespanManager
from fastapi import Depends, FastAPI
from faststream import AckPolicy, FastStream, TestApp
from faststream.exceptions import FeatureNotSupportedException, SetupError
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.annotations import KafkaMessage
from httpx import ASGITransport, AsyncClient
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import (
    ConstantRetry,
    Forward,
    NoRetry,
    OutboxBroker,
    OutboxResponse,
    Outgoing,
    TestOutboxBroker,
    fastapi,
    make_outbox_table,
)
from faststream_outbox.annotations import OutboxMessage
from faststream_outbox.exceptions import ConfigError, InvalidMessageError

# No transaction is needed where nothing is written to a database.
NO_SESSION: Any = None


class Trouble(Exception):
    pass


@pytest.fixture
def engine() -> AsyncEngine:
    """There is nothing behind it: whoever connects fails."""
    return create_async_engine("postgresql+asyncpg://database.invalid/shop")


@pytest.fixture
def make_broker(engine: AsyncEngine) -> Callable[..., OutboxBroker]:
    return lambda **options: OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), **options)


@pytest.fixture
def broker(make_broker: Callable[..., OutboxBroker]) -> OutboxBroker:
    return make_broker()


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------------ without loops


async def test_the_handler_has_run_when_publish_returns(broker: OutboxBroker) -> None:
    got: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: dict[str, int], message: OutboxMessage) -> None:
        got.append((body, message.queue, message.key, message.idempotency_key, message.headers["trace"]))

    tester = TestOutboxBroker(broker)
    async with tester as entered:
        assert entered is broker
        row_id = await broker.publish(
            {"id": 1},
            queue="orders",
            session=NO_SESSION,
            key="customer-7",
            idempotency_key="once",
            headers={"trace": "t"},
        )
        assert got == [({"id": 1}, "orders", "customer-7", "once", "t")]
        assert row_id == 1
        assert tester.store.rows == []
        handle.mock.assert_called_once_with({"id": 1})
        await handle.assert_called_once_with({"id": 1}, headers={"trace": "t"})

    with pytest.raises(SetupError):
        _ = handle.mock


async def test_what_the_handler_raises_publish_raises(broker: OutboxBroker) -> None:
    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        raise Trouble(body)

    async with TestOutboxBroker(broker):
        with pytest.raises(Trouble, match="tea"):
            await broker.publish("tea", queue="orders", session=NO_SESSION)
        handle.mock.assert_called_once_with("tea")
        with pytest.raises(Trouble, match="milk"):
            await broker.publish_batch("milk", queue="orders", session=NO_SESSION)


@pytest.mark.parametrize(
    ("refused", "argument"),
    [
        ({"queue": ""}, "queue"),
        ({"queue": "q" * 256}, "queue"),
        ({"queue": "orders", "key": ""}, "key"),
        ({"queue": "orders", "headers": {"n": 1}}, "headers"),
        ({"queue": "orders", "headers": {"n": "\x00"}}, "headers"),
        ({"queue": "orders", "activate_at": datetime(2026, 1, 1)}, "activate_at"),  # noqa: DTZ001
        ({"queue": "orders", "activate_in": timedelta(1), "activate_at": datetime.now(UTC)}, "activate_"),
        ({"queue": "orders", "body": object()}, "body"),
        ({"queue": "orders", "body": "x" * 101}, "body"),
    ],
)
async def test_bad_input_is_refused_as_ever(
    make_broker: Callable[..., OutboxBroker], refused: dict[str, Any], argument: str
) -> None:
    broker = make_broker(max_payload_bytes=100)
    broker.subscriber("orders")(lambda body: None)
    tester = TestOutboxBroker(broker)
    async with tester:
        with pytest.raises(InvalidMessageError, match=argument):
            await broker.publish(**{"body": "tea", **refused}, session=NO_SESSION)
    assert tester.store.rows == []


async def test_a_body_that_the_handler_does_not_take(broker: OutboxBroker) -> None:
    @broker.subscriber("orders")
    async def handle(body: dict[str, int]) -> None: ...

    async with TestOutboxBroker(broker):
        with pytest.raises(Exception, match="validation error"):
            await broker.publish({"id": "one"}, queue="orders", session=NO_SESSION)


async def test_a_batch_is_handled_in_its_order(broker: OutboxBroker) -> None:
    got: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: str, message: OutboxMessage) -> None:
        got.append((body, message.key))

    async with TestOutboxBroker(broker):
        batch = ("a", Outgoing("b", key="own"), "c")
        assert await broker.publish_batch(*batch, queue="orders", session=NO_SESSION, key="all") == [1, 2, 3]
    assert got == [("a", "all"), ("b", "own"), ("c", "all")]


async def test_a_message_without_a_consumer_stays(broker: OutboxBroker) -> None:
    tester = TestOutboxBroker(broker)
    async with tester:
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        [row] = tester.store.rows
        assert (row.queue, row.payload) == ("orders", b"tea")
        assert await broker.fetch_unprocessed(session=NO_SESSION) == [row]
        assert await broker.ping() is True


async def test_a_live_duplicate_is_not_delivered(broker: OutboxBroker) -> None:
    async with TestOutboxBroker(broker):
        publish = {"queue": "orders", "session": NO_SESSION, "idempotency_key": "once"}
        assert await broker.publish("tea", **publish) == 1
        assert await broker.publish("tea", **publish) is None


async def test_mocks_of_publishers(broker: OutboxBroker) -> None:
    to_invoices, to_nobody = broker.publisher("invoices"), broker.publisher("nobody")

    @to_invoices
    @to_nobody
    @broker.subscriber("orders")
    async def handle(body: str) -> str:
        return f"an invoice for {body}"

    @broker.subscriber("invoices")
    async def invoice(body: str) -> None: ...

    async with TestOutboxBroker(broker):
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        for endpoint in (to_invoices, to_nobody, invoice):
            endpoint.mock.assert_called_once_with("an invoice for tea")
        await to_nobody.publish("by itself", session=NO_SESSION)
        to_nobody.mock.assert_called_with("by itself")
    assert len(broker.subscribers) == 2


async def test_a_chained_response(broker: OutboxBroker) -> None:
    @broker.subscriber("orders")
    async def handle(body: str) -> OutboxResponse:
        return OutboxResponse(f"an invoice for {body}", queue="invoices", session=NO_SESSION)

    @broker.subscriber("invoices")
    async def invoice(body: str, message: OutboxMessage) -> None:
        assert message.correlation_id == "c-1"

    async with TestOutboxBroker(broker):
        await broker.publish("tea", queue="orders", session=NO_SESSION, correlation_id="c-1")
        invoice.mock.assert_called_once_with("an invoice for tea")


async def test_a_handlers_decision_raises_nothing(broker: OutboxBroker) -> None:
    @broker.subscriber("orders", ack_policy=AckPolicy.MANUAL)
    async def handle(body: str, message: OutboxMessage) -> None:
        await message.reject()

    async with TestOutboxBroker(broker):
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        handle.mock.assert_called_once()


async def test_delayed_messages_wait(broker: OutboxBroker) -> None:
    got: list[str] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        got.append(body)

    tester = TestOutboxBroker(broker)
    async with tester:
        later = {"queue": "orders", "session": NO_SESSION}
        await broker.publish("in a day", **later, activate_in=timedelta(days=1))
        await broker.publish("at noon", **later, activate_at=datetime.now(UTC) + timedelta(hours=1))
        broker.publish_sync("written without a loop", queue="orders", session=NO_SESSION)
        staged = broker.stage("staged", queue="orders", session=NO_SESSION, idempotency_key="s")
        again = broker.stage("staged", queue="orders", session=NO_SESSION, idempotency_key="s")
        assert (staged.is_written, staged.id, again.is_written, again.id) == (True, 4, True, None)
        assert got == []
        assert len(tester.store.rows) == 4
        await tester.deliver_all()
        assert got == ["in a day", "at noon", "written without a loop", "staged"]
        assert tester.store.rows == []
        await tester.deliver_all()
        assert len(got) == 4


async def test_a_timer_can_be_cancelled(broker: OutboxBroker) -> None:
    @broker.subscriber("timers")
    async def handle(body: str) -> None: ...

    tester = TestOutboxBroker(broker)
    async with tester:
        timer = {"queue": "timers", "timer_id": "t-1", "session": NO_SESSION}
        assert await broker.publish("ring", **timer, activate_in=timedelta(days=1)) == 1
        assert await broker.publish("ring", **timer, activate_in=timedelta(days=1)) is None
        assert await broker.cancel_timer(**timer) is True
        assert await broker.cancel_timer(**timer) is False
        await tester.deliver_all()
        handle.mock.assert_not_called()


async def test_a_timer_is_moved(broker: OutboxBroker) -> None:
    """By ``publish``, by a handler's response, and by ``publish_sync``."""

    @broker.subscriber("timers")
    async def handle(body: str) -> None: ...

    timer: dict[str, Any] = {"queue": "timers", "timer_id": "t", "timer_conflict": "extend", "session": NO_SESSION}

    @broker.subscriber("orders")
    async def respond(body: str) -> OutboxResponse:
        return OutboxResponse("third", **timer, activate_in=timedelta(days=1))

    tester = TestOutboxBroker(broker)
    async with tester:
        written = [
            await broker.publish("first", **timer, activate_in=timedelta(days=1)),
            broker.publish_sync("second", **timer, activate_in=timedelta(days=1)),
            await broker.publish("order", queue="orders", session=NO_SESSION),
        ]
        assert None not in written
        assert await broker.publish("fourth", **timer | {"timer_conflict": "keep"}) is None
        assert broker.duplicates == 1
        handle.mock.assert_not_called()
        await tester.deliver_all()
        handle.mock.assert_called_once_with("third")


async def test_a_timer_cancelled_by_an_earlier_handler(broker: OutboxBroker) -> None:
    got: list[str] = []

    @broker.subscriber("timers")
    async def handle(body: str) -> None:
        got.append(body)
        await broker.cancel_timer(queue="timers", timer_id="second", session=NO_SESSION)

    tester = TestOutboxBroker(broker)
    async with tester:
        for name in ("first", "second", "third"):
            delayed = {"timer_id": name, "activate_in": timedelta(days=1)}
            await broker.publish(name, queue="timers", session=NO_SESSION, **delayed)
        await tester.deliver_all()
    assert got == ["first", "third"]


async def test_several_brokers_share_the_store(make_broker: Callable[..., OutboxBroker]) -> None:
    """As two services do that share a table."""
    here, there = make_broker(), make_broker()

    @there.subscriber("orders")
    async def handle(body: str) -> None: ...

    async with TestOutboxBroker(here, there) as brokers:
        assert list(brokers) == [here, there]
        await here.publish("tea", queue="orders", session=NO_SESSION)
        handle.mock.assert_called_once_with("tea")


async def test_inside_of_testapp(broker: OutboxBroker) -> None:
    events: list[str] = []
    app = FastStream(broker)

    @app.after_startup
    async def started() -> None:
        await broker.publish("tea", queue="orders", session=NO_SESSION)

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        events.append(body)

    async with TestOutboxBroker(broker), TestApp(app):
        assert events == ["tea"]


# ---------------------------------------------------------------------------------------------------------- forwarders


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_forwarder_into_a_test_kafka(broker: OutboxBroker, run_loops: bool) -> None:
    kafka = KafkaBroker(acks="all")
    got: list[Any] = []

    @kafka.subscriber("orders.v1")
    async def arrived(body: dict[str, int], message: KafkaMessage) -> None:
        headers = message.headers
        key = message.raw_message.key
        got.append(
            (body, key, message.correlation_id, headers["idempotency-key"], headers["outbox-queue"], headers["h"])
        )

    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    to_orders = broker.publisher("orders")

    tester = TestOutboxBroker(broker, run_loops=run_loops)
    async with tester, AsyncExitStack() as stack:
        await stack.enter_async_context(TestKafkaBroker(kafka))
        await to_orders.publish(
            {"id": 1}, session=NO_SESSION, key="k", correlation_id="c", idempotency_key="once", headers={"h": "v"}
        )
        await until(lambda: got and not tester.store.rows)
        assert got == [({"id": 1}, b"k", "c", "once", "orders", "v")]
        arrived.mock.assert_called_once_with({"id": 1})
        to_orders.mock.assert_called_once_with({"id": 1})
    assert list(broker.subscribers) == []


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_forwarder_into_a_test_rabbit(broker: OutboxBroker, run_loops: bool) -> None:
    pytest.importorskip("aio_pika")
    from faststream.rabbit import RabbitBroker, TestRabbitBroker
    from faststream.rabbit.annotations import RabbitMessage

    ids: list[str] = []
    rabbit = RabbitBroker(logger=None)
    publisher = rabbit.publisher("orders.v1", persist=True)

    @rabbit.subscriber("orders.v1")
    async def arrived(body: dict[str, int], message: RabbitMessage) -> None:
        ids.append(message.message_id)

    broker.forwarder("orders", to=publisher)
    async with TestOutboxBroker(broker, run_loops=run_loops), AsyncExitStack() as stack:
        await stack.enter_async_context(TestRabbitBroker(rabbit))
        await broker.publish(
            {"id": 1}, queue="orders", session=NO_SESSION, key="k", correlation_id="c", idempotency_key="once"
        )
        await until(lambda: arrived.mock.called)
        headers = {"idempotency-key": "once", "outbox-queue": "orders", "outbox-key": "k"}
        await arrived.assert_called_once_with({"id": 1}, headers=headers, correlation_id="c")
    assert ids == ["once"]


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_forwarder_into_a_test_redis(broker: OutboxBroker, run_loops: bool) -> None:
    pytest.importorskip("redis")
    from faststream.redis import RedisBroker, TestRedisBroker

    redis = RedisBroker(logger=None)
    publisher = redis.publisher(stream="orders.v1")

    @redis.subscriber(stream="orders.v1")
    async def arrived(body: dict[str, int]) -> None: ...

    broker.forwarder("orders", to=publisher)
    async with TestOutboxBroker(broker, run_loops=run_loops), AsyncExitStack() as stack:
        await stack.enter_async_context(TestRedisBroker(redis))
        await broker.publish(
            {"id": 1}, queue="orders", session=NO_SESSION, key="k", correlation_id="c", idempotency_key="once"
        )
        await until(lambda: arrived.mock.called)
        headers = {"idempotency-key": "once", "outbox-queue": "orders", "outbox-key": "k"}
        await arrived.assert_called_once_with({"id": 1}, headers=headers, correlation_id="c")


def divert(message: OutboxMessage) -> Forward | None:
    if message.body == b"tea":
        return Forward(to="teas", key="new", headers={"old": None, "h": "v"})
    if message.body == b"milk":
        raise Trouble("milk")
    return None if message.body == b"water" else Forward()


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_transform_into_a_test_kafka(broker: OutboxBroker, run_loops: bool) -> None:
    kafka = KafkaBroker(acks="all")
    got: list[Any] = []

    @kafka.subscriber("orders.v1", "teas")
    async def arrived(body: str, message: KafkaMessage) -> None:
        record = message.raw_message
        got.append((body, record.topic, record.key, message.headers.get("old"), message.headers.get("h")))

    broker.forwarder("orders", to=kafka.publisher("orders.v1"), transform=divert, retry_strategy=NoRetry())
    tester = TestOutboxBroker(broker, run_loops=run_loops)
    async with tester, AsyncExitStack() as stack:
        await stack.enter_async_context(TestKafkaBroker(kafka))
        for body in ("tea", "water", "rum"):
            await broker.publish(body, queue="orders", session=NO_SESSION, key="k", headers={"old": "x"})
        with nullcontext() if run_loops else pytest.raises(Trouble, match="milk"):
            await broker.publish("milk", queue="orders", session=NO_SESSION, key="k")
        if run_loops:
            await until(lambda: not tester.store.rows)
            [(row, dead)] = tester.store.dead_letters
            assert (row.payload, dead.exception) == (b"milk", "Trouble: milk")
        else:
            assert [row.payload for row in tester.store.rows] == [b"milk"]
    assert got == [("tea", "teas", b"new", None, "v"), ("rum", "orders.v1", b"k", "x", None)]


async def test_a_transform_into_test_brokers_of_other_kinds(make_broker: Callable[..., OutboxBroker]) -> None:
    pytest.importorskip("redis")
    from faststream.rabbit import RabbitBroker, TestRabbitBroker
    from faststream.redis import RedisBroker, TestRedisBroker

    redis, rabbit = RedisBroker(logger=None), RabbitBroker(logger=None)

    @redis.subscriber(stream="teas")
    async def to_stream(body: str) -> None: ...

    @redis.subscriber(list="teas-list")
    async def to_list(body: str) -> None: ...

    @rabbit.subscriber("teas")
    async def to_rabbit(body: str) -> None: ...

    def to_teas(message: OutboxMessage) -> Forward:
        return Forward(to="teas-list" if message.queue == "lists" else "teas")

    broker = make_broker()
    broker.forwarder("streams", to=redis.publisher(stream="orders"), transform=to_teas)
    broker.forwarder("lists", to=redis.publisher(list="orders-list"), transform=to_teas)
    broker.forwarder("rabbits", to=rabbit.publisher("orders", persist=True), transform=to_teas)
    async with TestOutboxBroker(broker), TestRedisBroker(redis), TestRabbitBroker(rabbit):
        for queue in ("streams", "lists", "rabbits"):
            await broker.publish("tea", queue=queue, session=NO_SESSION)
        for handler in (to_stream, to_list, to_rabbit):
            handler.mock.assert_called_once_with("tea")


async def test_without_the_destination_rows_wait(broker: OutboxBroker) -> None:
    kafka = KafkaBroker(acks="all")
    arrived: list[str] = []

    @kafka.subscriber("orders.v1")
    async def arrive(body: str) -> None:
        arrived.append(body)

    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    tester = TestOutboxBroker(broker)
    async with tester:
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        assert [row.queue for row in tester.store.rows] == ["orders"]
        async with TestKafkaBroker(kafka):
            await tester.deliver_all()
        assert arrived == ["tea"]
        assert tester.store.rows == []


async def test_loops_wait_for_the_destination(broker: OutboxBroker) -> None:
    kafka = KafkaBroker(acks="all")
    arrived: list[str] = []

    @kafka.subscriber("orders.v1")
    async def arrive(body: str) -> None:
        arrived.append(body)

    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        await broker.publish_batch("tea", "milk", queue="orders", session=NO_SESSION, key="k")
        async with TestKafkaBroker(kafka):
            await until(lambda: len(arrived) == 2)
    assert arrived == ["tea", "milk"]


async def test_what_the_destinations_consumer_raises_is_no_refusal(broker: OutboxBroker) -> None:
    """The destination has taken the message; its own consumer is another matter."""
    kafka = KafkaBroker(acks="all")
    arrived: list[str] = []

    @kafka.subscriber("orders.v1")
    async def arrive(body: str) -> None:
        arrived.append(body)
        if len(arrived) < 3:
            raise Trouble

    broker.forwarder("orders", to=kafka.publisher("orders.v1"), retry_strategy=NoRetry())
    tester = TestOutboxBroker(broker, run_loops=True)
    async with TestKafkaBroker(kafka, connect_only=False), tester:
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        await until(lambda: len(arrived) == 3)
        await until(lambda: not tester.store.rows)
    assert tester.store.dead_letters == []


async def test_a_paused_forwarder_leaves_messages_where_they_are(broker: OutboxBroker) -> None:
    kafka = KafkaBroker(acks="all")
    arrived: list[str] = []

    @kafka.subscriber("orders.v1")
    async def arrive(body: str) -> None:
        arrived.append(body)

    forwarder = broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    tester = TestOutboxBroker(broker)
    async with TestKafkaBroker(kafka, connect_only=False), tester:
        forwarder.pause()
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        assert (arrived, len(tester.store.rows)) == ([], 1)
        forwarder.resume()
        await tester.deliver_all()
    assert (arrived, tester.store.rows) == (["tea"], [])


async def test_forwarders_of_brokers_that_are_not_under_test_keep_their_destinations(
    broker: OutboxBroker, make_broker: Callable[..., OutboxBroker]
) -> None:
    kafka = KafkaBroker(acks="all")
    mine = broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    other = make_broker().forwarder("orders", to=kafka.publisher("others.v1"))

    def lane_of(forwarder: Any) -> str:
        [lane] = forwarder._create_destinations(lambda *_: None, lanes=1).lanes
        return type(lane).__name__

    async with TestKafkaBroker(kafka), TestOutboxBroker(broker, run_loops=True):
        assert (lane_of(mine), lane_of(other)) == ("_TestDestination", "KafkaDestination")


async def test_a_row_has_left_the_store_while_its_handler_runs(broker: OutboxBroker) -> None:
    tester = TestOutboxBroker(broker)
    seen: list[int] = []

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        seen.append(body)
        if body == 1:
            # The same identity is free again: what is handled is no live duplicate.
            assert await broker.publish(2, queue="orders", session=NO_SESSION, idempotency_key="one") is not None

    async with tester:
        await broker.publish(1, queue="orders", session=NO_SESSION, idempotency_key="one")
    assert seen == [1, 2]


async def test_unsafe_settings_are_refused_with_loops_as_well(broker: OutboxBroker) -> None:
    kafka = KafkaBroker(acks=1)
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    async with TestKafkaBroker(kafka):
        with pytest.raises(ConfigError, match="acks"):
            async with TestOutboxBroker(broker, run_loops=True):
                pass


# ----------------------------------------------------------------------------------------------------------- with loops


async def test_loops_retry(broker: OutboxBroker) -> None:
    attempts: list[int] = []

    @broker.subscriber("orders", retry_strategy=ConstantRetry(delay_seconds=0.01))
    async def handle(body: str, message: OutboxMessage) -> None:
        attempts.append(message.attempts_count)
        if len(attempts) < 3:
            raise Trouble

    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        await until(lambda: len(attempts) == 3 and not tester.store.rows)
        assert handle.mock.call_count == 3
    assert attempts == [0, 1, 2]
    assert tester.store.dead_letters == []


async def test_loops_give_up(broker: OutboxBroker) -> None:
    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: str) -> None:
        raise Trouble(body)

    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        assert await broker.publish("tea", queue="orders", session=NO_SESSION) == 1
        await until(lambda: tester.store.dead_letters)
    [(row, dead)] = tester.store.dead_letters
    assert (row.queue, row.payload, row.attempts_count) == ("orders", b"tea", 1)
    assert (dead.reason, dead.exception) == ("retries_exhausted", "Trouble: tea")
    assert tester.store.rows == []


async def test_loops_run_so_many_handlers_at_a_time(broker: OutboxBroker) -> None:
    meeting = asyncio.Barrier(3)

    @broker.subscriber("orders", max_workers=3)
    async def handle(body: int) -> None:
        await meeting.wait()

    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        await broker.publish_batch(1, 2, 3, queue="orders", session=NO_SESSION)
        await until(lambda: not tester.store.rows)


async def test_loops_deliver_what_is_due(broker: OutboxBroker) -> None:
    got: list[str] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        got.append(body)

    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        later = {"queue": "orders", "session": NO_SESSION}
        await broker.publish("soon", **later, activate_in=timedelta(milliseconds=50))
        await broker.publish("tomorrow", **later, activate_in=timedelta(days=1))
        await broker.publish("now", **later)
        await until(lambda: len(got) == 2)
        assert got == ["now", "soon"]
        assert [row.payload for row in tester.store.rows] == [b"tomorrow"]
        with pytest.raises(ConfigError, match="deliver_all"):
            await tester.deliver_all()


async def test_messages_that_are_written_together(broker: OutboxBroker) -> None:
    """The store's own transaction, for a test that wants to see both ends of one."""
    got: list[str] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        got.append(body)

    tester = TestOutboxBroker(broker, run_loops=True)
    async with tester:
        with suppress(Trouble), tester.store.transaction() as session:
            await broker.publish("rolled back", queue="orders", session=session)  # type: ignore[arg-type]
            raise Trouble
        with tester.store.transaction() as session:
            await broker.publish("committed", queue="orders", session=session)  # type: ignore[arg-type]
            assert got == []
        await until(lambda: got)
    assert got == ["committed"]


# --------------------------------------------------------------------------------------------------------- with FastAPI


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_fastapi_application(engine: AsyncEngine, run_loops: bool) -> None:
    router = fastapi.OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()))
    closed: list[str] = []

    async def get_session() -> AsyncIterator[str]:
        raise AssertionError
        yield

    async def get_test_session() -> AsyncIterator[str]:
        yield "a session of the test"
        closed.append("closed")

    @router.subscriber("orders")
    async def handle(item: str, session: Annotated[str, Depends(get_session)]) -> None:
        assert session == "a session of the test"

    @router.post("/orders/{item}")
    async def create(item: str, broker: fastapi.OutboxBroker, session: Annotated[str, Depends(get_session)]) -> None:
        await broker.publish({"item": item}, queue="orders", session=session)  # type: ignore[arg-type]

    app = FastAPI()
    app.include_router(router)
    app.dependency_overrides[get_session] = get_test_session
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(TestOutboxBroker(router.broker, run_loops=run_loops))
        manager = await stack.enter_async_context(LifespanManager(app))
        transport = ASGITransport(manager.app)
        client = await stack.enter_async_context(AsyncClient(transport=transport, base_url="http://shop"))
        assert (await client.post("/orders/tea")).status_code == 200
        await until(lambda: len(closed) == 2)
        handle.mock.assert_called_once_with({"item": "tea"})
    assert not router.broker.running


# ----------------------------------------------------------------------------------------------- coming and going again


def parts(broker: OutboxBroker) -> list[Any]:
    producer: Any = broker.config.producer
    return [
        broker.config.broker_config.storage,
        producer,
        producer.writer,
        broker.start,
        broker.stop,
        len(broker.subscribers),
    ]


@pytest.mark.parametrize("run_loops", [False, True])
async def test_afterwards_the_broker_is_as_before(broker: OutboxBroker, run_loops: bool) -> None:
    broker.publisher("invoices")

    @broker.subscriber("orders")
    async def handle(body: str) -> None: ...

    before = parts(broker)
    for run in range(3):
        tester = TestOutboxBroker(broker, run_loops=run_loops)
        with suppress(Trouble):
            async with tester:
                assert parts(broker) != before
                await broker.publish(f"tea {run}", queue="orders", session=NO_SESSION)
                await until(lambda: handle.mock.call_count == 1)
                handle.mock.assert_called_once_with(f"tea {run}")
                raise Trouble
        assert parts(broker) == before
        assert not broker.running


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_start_that_fails_leaves_the_broker_as_before(
    broker: OutboxBroker, run_loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise Trouble

    subscriber = broker.subscriber("orders")
    subscriber(lambda body: None)
    monkeypatch.setattr(subscriber, "_build_fastdepends_model", fail)
    before = parts(broker)

    with pytest.raises(Trouble):
        await TestOutboxBroker(broker, run_loops=run_loops).__aenter__()
    assert parts(broker) == before
    assert not broker.running


async def test_one_inside_of_another(make_broker: Callable[..., OutboxBroker]) -> None:
    outer, inner = make_broker(), make_broker()

    @outer.subscriber("orders")
    async def handle(body: str) -> None:
        await inner.publish(body, queue="orders", session=NO_SESSION)

    @inner.subscriber("orders")
    async def handle_too(body: str) -> None: ...

    before = parts(outer), parts(inner)
    async with TestOutboxBroker(outer), TestOutboxBroker(inner):
        await outer.publish("tea", queue="orders", session=NO_SESSION)
        handle_too.mock.assert_called_once_with("tea")
    assert (parts(outer), parts(inner)) == before


async def test_the_same_broker_inside_of_itself(broker: OutboxBroker) -> None:
    @broker.subscriber("orders")
    async def handle(body: str) -> None: ...

    before = parts(broker)
    outer, inner = TestOutboxBroker(broker), TestOutboxBroker(broker)
    async with outer:
        async with inner:
            await broker.publish("inner", queue="nobody", session=NO_SESSION)
        await broker.publish("outer", queue="nobody", session=NO_SESSION)
    assert [[row.payload for row in tester.store.rows] for tester in (outer, inner)] == [[b"outer"], [b"inner"]]
    assert parts(broker) == before


def test_loops_on_both_stores_are_refused(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match="run_loops"):
        TestOutboxBroker(broker, run_loops=True, with_real=True)


async def test_the_asyncapi_page_offers_no_way_to_publish() -> None:
    """FastStream would run the live broker under its test broker for a moment: messages of others would be lost."""
    from faststream._internal.testing.broker import find_test_broker

    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()))
    found = find_test_broker(broker)
    assert found is not None, "the page of AsgiFastStream would not work"
    assert found is not TestOutboxBroker
    with pytest.raises(FeatureNotSupportedException, match="cannot be tried out"):
        await found(broker).__aenter__()
    assert not isinstance(broker.start, mock.NonCallableMock)


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_forwarder_with_tee_gets_its_copy_beside_the_handler(broker: OutboxBroker, run_loops: bool) -> None:
    kafka = KafkaBroker(acks="all")
    handled: list[str] = []
    consumed: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        handled.append(body)

    @kafka.subscriber("orders.v1")
    async def consume(body: str, message: KafkaMessage) -> None:
        consumed.append((body, message.headers["outbox-queue"], message.headers["idempotency-key"]))

    broker.forwarder("orders", to=kafka.publisher("orders.v1"), tee=True)
    tester = TestOutboxBroker(broker, run_loops=run_loops)
    async with TestKafkaBroker(kafka, connect_only=False), tester:
        await broker.publish("tea", queue="orders", session=NO_SESSION, idempotency_key="i")
        await until(lambda: handled and consumed)
        await until(lambda: not tester.store.rows)
    assert handled == ["tea"]
    assert consumed == [("tea", "orders", "i")]


async def test_the_figures_of_queues_are_those_in_memory(broker: OutboxBroker) -> None:
    @broker.subscriber("orders")
    async def handle(body: int) -> None: ...

    async with TestOutboxBroker(broker, run_loops=True):
        await broker.publish(1, queue="orders", session=NO_SESSION)
        await broker.publish(2, queue="others", session=NO_SESSION)
        await broker.wait_until_drained("orders", timeout=10)
        [figures] = await broker.admin.queues()
        assert (figures.queue, figures.backlog.rows) == ("others", 1)
        with pytest.raises(TimeoutError, match="'others' has 1 ready"):
            await broker.wait_until_drained(timeout=0.05)
