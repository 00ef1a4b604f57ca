"""Messages that come from no outbox, on real servers: delivered again they are the same, and no two of them are."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Annotated, Any

import pytest
from faststream import AckPolicy, Context
from faststream.message import StreamMessage

from faststream_outbox import NoIdentityError
from faststream_outbox.inbox.identity import identify
from integration.conftest import enter
from integration.destinations.kinds import BOXES
from integration.servers.mosquitto import EmbeddedMosquitto, running_mosquitto
from integration.servers.process import LOOPBACK

AnyMessage = Annotated[StreamMessage[Any], Context("message")]
BODIES = ("a", "b", "c")


@asynccontextmanager
async def started(broker: Any) -> AsyncIterator[Any]:
    async with broker:
        await broker.start()
        yield broker


async def kafka(url: str, name: str, handler: Any) -> Any:
    from faststream.kafka import KafkaBroker

    broker = KafkaBroker(url, logger=None)
    options = {"auto_offset_reset": "earliest", "ack_policy": AckPolicy.NACK_ON_ERROR}
    broker.subscriber(name, group_id=name, **options)(handler)
    return broker, lambda body: broker.publish(body, name)


async def confluent(url: str, name: str, handler: Any) -> Any:
    from faststream.confluent import KafkaBroker

    broker = KafkaBroker(url, logger=None)
    options = {"auto_offset_reset": "earliest", "ack_policy": AckPolicy.NACK_ON_ERROR}
    broker.subscriber(name, group_id=name, **options)(handler)
    return broker, lambda body: broker.publish(body, name)


async def rabbit(url: str, name: str, handler: Any) -> Any:
    from faststream.rabbit import RabbitBroker, RabbitQueue

    broker = RabbitBroker(url, logger=None)
    queue = RabbitQueue(name, durable=True, declare=False)
    broker.subscriber(queue, ack_policy=AckPolicy.NACK_ON_ERROR)(handler)
    return broker, lambda body: broker.publish(body, name, message_id=f"id of {body}")


async def redis(url: str, name: str, handler: Any) -> Any:
    """Two readers without a group have each entry, as one has that reads anew."""
    from faststream.redis import RedisBroker, StreamSub

    broker = RedisBroker(url, logger=None)
    for count in (1, 2):
        broker.subscriber(stream=StreamSub(name, last_id="0", polling_interval=20, max_records=count))(handler)
    return broker, lambda body: broker.publish(body, stream=name)


async def nats(url: str, name: str, handler: Any) -> Any:
    from faststream.nats import JStream, NatsBroker

    broker = NatsBroker(url, logger=None)
    stream = JStream(name, declare=False)
    options = {"deliver_policy": "all", "ack_policy": AckPolicy.NACK_ON_ERROR}
    broker.subscriber(name, stream=stream, **options)(handler)
    return broker, lambda body: broker.publish(body, name, stream=name)


@pytest.mark.parametrize(
    ("kind", "make"),
    [("kafka", kafka), ("confluent", confluent), ("rabbit", rabbit), ("redis-stream", redis), ("nats", nats)],
)
@pytest.mark.timeout(120)
async def test_a_message_that_is_delivered_again_is_known(request: pytest.FixtureRequest, kind: str, make: Any) -> None:
    seen: dict[str, list[tuple[str, str]]] = {body: [] for body in BODIES}
    all_twice = asyncio.Event()

    async def handle(message: AnyMessage) -> None:
        copies = seen[message.body.decode()]
        copies.append(identify(message))
        if all(len(each) >= 2 for each in seen.values()):
            all_twice.set()
        if len(copies) == 1:
            raise InterruptedError

    box_class = BOXES[kind]
    async with box_class.open(request.getfixturevalue(str(box_class.server_fixture))) as box:
        broker, publish = await make(box.url, box.name, handle)
        async with started(broker):
            for body in BODIES:
                await publish(body.encode())
            async with asyncio.timeout(60):
                await all_twice.wait()
    for copies in seen.values():
        assert len(set(copies)) == 1, copies
        assert copies[0][0] == ""
    assert len({copies[0] for copies in seen.values()}) == len(BODIES)


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[EmbeddedMosquitto]:
    with ExitStack() as stack:
        yield enter(stack, running_mosquitto())


async def test_mqtt_has_no_ids_but_that_of_an_outbox(mosquitto: EmbeddedMosquitto) -> None:
    from faststream.mqtt import MQTTBroker

    broker = MQTTBroker(f"mqtt://{LOOPBACK}:{mosquitto.port}", version="5.0", logger=None)
    found: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("orders", qos=1)
    async def handle(message: AnyMessage) -> None:
        try:
            await found.put(identify(message))
        except NoIdentityError as error:
            await found.put(str(error))

    async with started(broker), asyncio.timeout(30):
        await broker.publish(b"x", "orders", qos=1)
        assert "a MQTTMessage without an identity" in await found.get()
        await broker.publish(b"x", "orders", qos=1, headers={"idempotency-key": "k", "outbox-queue": "orders"})
        assert await found.get() == ("orders", "k")


async def test_core_nats_has_none(request: pytest.FixtureRequest) -> None:
    from faststream.nats import NatsBroker

    broker = NatsBroker(request.getfixturevalue("nats_server").url, logger=None)
    found: asyncio.Queue[Any] = asyncio.Queue()

    @broker.subscriber("inbox.of.core.nats")
    async def handle(message: AnyMessage) -> None:
        try:
            await found.put(identify(message))
        except NoIdentityError as error:
            await found.put(str(error))

    async with started(broker), asyncio.timeout(30):
        await broker.publish(b"x", "inbox.of.core.nats")
        assert "a NatsMessage without an identity" in await found.get()
