"""What is declared after the broker's start is started at once, or refused: it never waits in silence."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import ConfigError, OutboxBroker, OutboxRoute, OutboxRouter, TestOutboxBroker
from faststream_outbox import fastapi as outbox_fastapi

MakeTest = Callable[..., Any]


@pytest.fixture(params=["memory", "loops"])
async def running(broker: OutboxBroker, request: pytest.FixtureRequest) -> AsyncIterator[OutboxBroker]:
    """A broker that has started, on memory; with the real loops or without."""
    async with TestOutboxBroker(broker, run_loops=request.param == "loops"):
        yield broker


class Inbox(asyncio.Queue[Any]):
    async def takes(self, body: Any) -> None:
        await self.put(body)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await self.get()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


async def publish(broker: OutboxBroker, body: Any, queue: str = "late") -> None:
    await broker.publish(body, queue=queue, session=None)  # type: ignore[arg-type]


def loops() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("outbox-")}


async def test_a_subscriber(running: OutboxBroker, inbox: Inbox) -> None:
    running.subscriber("late")(inbox.takes)
    await publish(running, "tea")
    assert await inbox.next() == "tea"


async def test_a_subscriber_that_is_started_as_faststream_has_it(running: OutboxBroker, inbox: Inbox) -> None:
    subscriber = running.subscriber("late", persistent=False)
    subscriber(inbox.takes)
    await subscriber.start()
    before, lock = loops(), subscriber.lock
    await asyncio.sleep(0)
    assert loops() == before - {"outbox-start-late"}, "it starts once"
    assert subscriber.lock is lock, "by which a stop waits for handlers"
    await publish(running, "tea")
    assert await inbox.next() == "tea"
    await subscriber.stop()


async def test_a_handler_that_a_subscriber_gets_later(running: OutboxBroker, inbox: Inbox) -> None:
    """One more for a subscriber that runs, and the first for one that has waited for it."""
    one = running.subscriber("late")
    await asyncio.sleep(0)
    one(inbox.takes, filter=lambda message: message.headers.get("for") == "one")
    await asyncio.sleep(0)

    async def takes_other(body: Any) -> None:
        await inbox.put(f"other {body}")

    one(takes_other)
    await publish(running, "tea")
    assert await inbox.next() == "other tea"
    await running.publish("milk", queue="late", session=None, headers={"for": "one"})  # type: ignore[arg-type]
    assert await inbox.next() == "milk"


async def test_a_publisher_over_the_handler(running: OutboxBroker, inbox: Inbox) -> None:
    running.subscriber("results")(inbox.takes)

    @running.publisher("results")
    @running.subscriber("late")
    async def handle(body: str) -> str:
        return f"{body} is made"

    await publish(running, "tea")
    assert await inbox.next() == "tea is made"


async def test_a_router_and_what_it_gets_later(running: OutboxBroker, inbox: Inbox) -> None:
    router = OutboxRouter(prefix="shop-", handlers=[OutboxRoute(inbox.takes, "late")])
    running.include_router(router)
    await publish(running, "tea", "shop-late")
    assert await inbox.next() == "tea"
    router.subscriber("later")(inbox.takes)
    await publish(running, "milk", "shop-later")
    assert await inbox.next() == "milk"


@pytest.mark.parametrize("on_router", [False, True])
async def test_a_forwarder(running: OutboxBroker, on_router: bool) -> None:
    kafka = KafkaBroker(acks="all")
    arrived: asyncio.Queue[Any] = asyncio.Queue()

    @kafka.subscriber("late.v1")
    async def consume(body: str) -> None:
        await arrived.put(body)

    to = kafka.publisher("late.v1")
    router = OutboxRouter()
    if on_router:
        router.forwarder("late", to=to)
        running.include_router(router)
    else:
        running.forwarder("late", to=to)
    async with TestKafkaBroker(kafka, connect_only=False):
        await publish(running, "tea")
        async with asyncio.timeout(10):
            assert await arrived.get() == "tea"


async def test_with_fastapi(engine: AsyncEngine, outbox_table: Table, inbox: Inbox) -> None:
    router = outbox_fastapi.OutboxRouter(engine, outbox_table=outbox_table, logger=None)
    inner = OutboxRouter(handlers=[OutboxRoute(inbox.takes, "inner")])
    async with TestOutboxBroker(router.broker, run_loops=True) as broker:

        @router.subscriber("late")
        async def handle(body: str, one: int = fastapi.Depends(lambda: 1)) -> None:
            await inbox.put((body, one))

        router.include_router(inner)
        await publish(broker, "tea")
        assert await inbox.next() == ("tea", 1)
        await publish(broker, "milk", "inner")
        assert await inbox.next() == "milk"


# ------------------------------------------------------------------------------------------------------------ refused


async def test_another_consumer_of_a_queue_is_refused(broker: OutboxBroker, inbox: Inbox) -> None:
    router = OutboxRouter()
    broker.include_router(router)
    broker.subscriber("late")(inbox.takes)
    await broker.start()
    for declare in (
        lambda: router.subscriber("late"),
        lambda: broker.subscriber("late"),
        lambda: router.forwarder("late", to=KafkaBroker(acks="all").publisher("x")),
        lambda: broker.include_router(OutboxRouter(handlers=[OutboxRoute(inbox.takes, "late")])),
    ):
        with pytest.raises(ConfigError, match="'late' has a consumer already"):
            declare()


async def test_a_forwarder_whose_destination_is_not_safe_is_refused_and_gets_no_copies(broker: OutboxBroker) -> None:
    await broker.start()
    unsafe = KafkaBroker(acks=0).publisher("late.v1")
    with pytest.raises(ConfigError, match="acks"):
        broker.forwarder("late", to=unsafe, tee=True, name="late")
    assert broker.forwarders == []
    assert broker.copies_of("late") == ()


async def test_a_handler_that_cannot_be_called_is_refused(broker: OutboxBroker) -> None:
    await broker.start()
    with pytest.raises(ConfigError, match="FastAPI's"):

        @broker.subscriber("late")
        async def handle(body: str, one: int = fastapi.Depends(lambda: 1)) -> None: ...


async def test_outside_of_the_brokers_event_loop_it_is_refused(broker: OutboxBroker, inbox: Inbox) -> None:
    await broker.start()
    to = KafkaBroker(acks="all").publisher("late.v1")
    with pytest.raises(ConfigError, match=r"subscriber of late: .*event loop: declare it before the start"):
        await asyncio.to_thread(lambda: broker.subscriber("late")(inbox.takes))
    with pytest.raises(ConfigError, match=r"forwarder of other: .*event loop: declare it before the start"):
        await asyncio.to_thread(lambda: broker.forwarder("other", to=to))
    assert broker.forwarders == []


# ---------------------------------------------------------------------------------------------- while the broker stops


async def test_what_is_declared_while_the_broker_stops_waits_for_the_next_start(
    broker: OutboxBroker, inbox: Inbox
) -> None:
    stopping = asyncio.Event()
    stopped: list[asyncio.Task[None]] = []
    to = KafkaBroker(acks="all").publisher("late.v1")

    async def handle(body: Any) -> None:
        stopped.append(asyncio.create_task(broker.stop()))
        while broker.config.is_open:
            await asyncio.sleep(0)
        broker.subscriber("late")(inbox.takes)
        broker.forwarder("later", to=to)
        stopping.set()

    broker.subscriber("early")(handle)
    async with TestOutboxBroker(broker, run_loops=True):
        await publish(broker, "tea", "early")
        async with asyncio.timeout(10):
            await stopping.wait()
            await stopped[0]
        assert loops() == set()
        await broker.start()
        await publish(broker, "milk")
        assert await inbox.next() == "milk"


async def test_a_stop_right_after_a_late_declaration_leaves_nothing_running(broker: OutboxBroker, inbox: Inbox) -> None:
    await broker.start()
    broker.subscriber("late")(inbox.takes)
    await broker.stop()
    await asyncio.sleep(0)
    assert loops() == set()
