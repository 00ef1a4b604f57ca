"""`Inbox.once` in handlers of every kind, on memory: repeats never reach them, and are acknowledged."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends as FastAPIDepends
from fastapi import FastAPI
from faststream import AckPolicy, Context, Depends
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.annotations import KafkaMessage
from faststream.message import AckStatus, StreamMessage
from faststream.rabbit import RabbitBroker, TestRabbitBroker
from faststream.rabbit.annotations import RabbitMessage
from faststream.redis import RedisBroker, TestRedisBroker
from faststream.redis.annotations import RedisMessage
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from faststream_outbox import (
    ConfigError,
    Inbox,
    NoIdentityError,
    OutboxBroker,
    OutboxResponse,
    TestInbox,
    TestOutboxBroker,
    fastapi,
    make_outbox_table,
)
from faststream_outbox.annotations import OutboxMessage

NO_SESSION: Any = None
AnyMessage = Annotated[StreamMessage[Any], Context("message")]
HEADERS = {"idempotency-key": "k", "outbox-queue": "orders"}


class Trouble(Exception):
    pass


async def get_session() -> AsyncSession:
    return AsyncSession()


def get_plain_session() -> Session:
    return Session()


@pytest.fixture
def engine() -> AsyncEngine:
    """There is nothing behind it: every connection fails."""
    return create_async_engine("postgresql+asyncpg://database.invalid/shop")


@pytest.fixture
def broker(engine: AsyncEngine) -> OutboxBroker:
    return OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)


# --- our own broker


@pytest.mark.parametrize("policy", [AckPolicy.NACK_ON_ERROR, AckPolicy.MANUAL, AckPolicy.REJECT_ON_ERROR])
@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_repeat_does_not_reach_the_handler_and_is_acknowledged(
    broker: OutboxBroker, inbox: Inbox, policy: AckPolicy, run_loops: bool
) -> None:
    calls: list[Any] = []

    @broker.subscriber("orders", ack_policy=policy)
    @inbox.once
    async def handle(body: Any, message: OutboxMessage, session: AsyncSession = Depends(get_session)) -> None:
        calls.append(body)
        await message.ack()

    test = TestOutboxBroker(broker, run_loops=run_loops)
    async with test:
        for body in (1, 2, 3):
            await broker.publish(body, queue="orders", idempotency_key="k", session=NO_SESSION)
            async with asyncio.timeout(10):
                while test.store.rows:
                    await asyncio.sleep(0.01)
    assert calls == [1]
    assert (inbox.accepted, inbox.repeated) == (1, 2)
    assert not test.store.dead_letters


async def test_a_handler_that_failed_is_called_again(broker: OutboxBroker, inbox: Inbox) -> None:
    calls: list[Any] = []

    @broker.subscriber("orders")
    @inbox.once
    async def handle(body: Any, message: OutboxMessage, session: AsyncSession = Depends(get_session)) -> None:
        calls.append(body)
        if len(calls) == 1:
            raise Trouble

    async with TestOutboxBroker(broker):
        with pytest.raises(Trouble):
            await broker.publish(1, queue="orders", idempotency_key="k", session=NO_SESSION)
        for body in (2, 3):
            await broker.publish(body, queue="orders", idempotency_key="k", session=NO_SESSION)
    assert calls == [1, 2]


async def test_a_response_in_the_handlers_session_is_published_once(broker: OutboxBroker, inbox: Inbox) -> None:
    @broker.subscriber("orders")
    @inbox.once
    async def handle(body: Any, message: OutboxMessage, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(body, queue="invoices", session=session)

    invoices = broker.publisher("invoices")
    async with TestOutboxBroker(broker):
        for body in (1, 2):
            await broker.publish(body, queue="orders", idempotency_key="k", session=NO_SESSION)
        invoices.mock.assert_called_once_with(1)


async def test_a_response_in_another_session_is_refused(broker: OutboxBroker, inbox: Inbox) -> None:
    @broker.subscriber("orders")
    @inbox.once
    async def handle(body: Any, message: OutboxMessage, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(body, queue="invoices", session=await get_session())

    async with TestOutboxBroker(broker):
        with pytest.raises(ConfigError, match="handle returned OutboxResponse, which would be published after"):
            await broker.publish(1, queue="orders", session=NO_SESSION)


# --- brokers of FastStream


async def publish_to_kafka(broker: Any, headers: dict[str, str]) -> None:
    await broker.publish(1, "orders", headers=headers)


async def publish_to_rabbit(broker: Any, headers: dict[str, str]) -> None:
    await broker.publish(1, "orders", headers=headers, message_id="of the copy")


async def publish_to_redis(broker: Any, headers: dict[str, str]) -> None:
    await broker.publish(1, stream="orders", headers=headers)


BROKERS = [
    pytest.param(KafkaBroker, TestKafkaBroker, KafkaMessage, publish_to_kafka, {}, id="kafka"),
    pytest.param(RabbitBroker, TestRabbitBroker, RabbitMessage, publish_to_rabbit, {}, id="rabbit"),
    pytest.param(RedisBroker, TestRedisBroker, RedisMessage, publish_to_redis, {"stream": "orders"}, id="redis"),
]


@pytest.mark.parametrize(("kind", "test_broker", "message_type", "publish", "options"), BROKERS)
async def test_other_brokers_copies_on_memory(
    inbox: Inbox, kind: Any, test_broker: Any, message_type: Any, publish: Callable[..., Any], options: dict[str, Any]
) -> None:
    broker = kind(logger=None)
    calls: list[Any] = []

    async def handle(body, message, session=Depends(get_session)):  # type: ignore[no-untyped-def]
        calls.append(body)

    handle.__annotations__ = {"body": int, "message": message_type, "session": AsyncSession}
    broker.subscriber(*(() if options else ("orders",)), **options)(inbox.once(handle))
    with TestInbox() as test:
        async with test_broker(broker):
            for key in ("k", "k", "other"):
                await publish(broker, {**HEADERS, "idempotency-key": key})
        assert test.entries == [("billing", "orders", "k"), ("billing", "orders", "other")]
    assert calls == [1, 1]
    assert (inbox.accepted, inbox.repeated) == (2, 1)


async def test_a_result_that_a_crash_would_lose_is_refused(inbox: Inbox) -> None:
    broker = KafkaBroker(logger=None)

    @broker.subscriber("orders")
    @inbox.once
    async def handle(body: int, message: KafkaMessage, session: AsyncSession = Depends(get_session)) -> int:
        return body

    with TestInbox():
        async with TestKafkaBroker(broker):
            with pytest.raises(ConfigError, match=r"handle returned int.*OutboxBroker.publish\(session=session\)"):
                await broker.publish(1, "orders", headers=HEADERS)


async def test_a_repeat_is_acknowledged_where_nobody_else_does(inbox: Inbox) -> None:
    broker = RabbitBroker(logger=None)
    seen: list[StreamMessage[Any]] = []

    @broker.subscriber("orders", ack_policy=AckPolicy.MANUAL)
    @inbox.once
    async def handle(body: int, message: RabbitMessage, session: AsyncSession = Depends(get_session)) -> None:
        await message.ack()

    accept = inbox.accept

    async def watched(session: Any, message: StreamMessage[Any]) -> bool:
        seen.append(message)
        return await accept(session, message)

    inbox.accept = watched  # type: ignore[method-assign]
    with TestInbox():
        async with TestRabbitBroker(broker):
            for _ in range(2):
                await broker.publish(1, "orders", headers=HEADERS)
    assert [each.committed for each in seen] == [AckStatus.ACKED, AckStatus.ACKED]


async def test_a_plain_function_with_a_plain_session(inbox: Inbox) -> None:
    broker = RabbitBroker(logger=None)
    calls: list[int] = []

    @broker.subscriber("orders")
    @inbox.once
    def handle(body: int, message: RabbitMessage, session: Session = Depends(get_plain_session)) -> None:
        calls.append(body)

    with TestInbox():
        async with TestRabbitBroker(broker):
            for _ in range(3):
                await broker.publish(1, "orders", headers=HEADERS)
    assert calls == [1]
    assert (inbox.accepted, inbox.repeated) == (1, 2)


# --- FastAPI


async def test_a_fastapi_handler(engine: AsyncEngine, inbox: Inbox) -> None:
    router = fastapi.OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    calls: list[Any] = []

    @router.subscriber("orders")
    @inbox.once
    async def handle(
        body: dict[str, int], message: fastapi.OutboxMessage, session: AsyncSession = FastAPIDepends(get_session)
    ) -> None:
        calls.append(body)

    app = FastAPI()
    app.include_router(router)
    async with TestOutboxBroker(router.broker):
        for number in range(3):
            await router.broker.publish({"n": number}, queue="orders", idempotency_key="k", session=NO_SESSION)
    assert calls == [{"n": 0}]
    assert inbox.repeated == 2


async def test_a_fastapi_handler_that_is_a_plain_function(engine: AsyncEngine, inbox: Inbox) -> None:
    router = fastapi.OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    calls: list[Any] = []

    @router.subscriber("orders")
    @inbox.once
    def handle(
        body: dict[str, int], message: fastapi.OutboxMessage, session: Session = FastAPIDepends(get_plain_session)
    ) -> None:
        calls.append(body)

    async with TestOutboxBroker(router.broker):
        for number in range(3):
            await router.broker.publish({"n": number}, queue="orders", idempotency_key="k", session=NO_SESSION)
    assert calls == [{"n": 0}]
    assert inbox.repeated == 2


# --- what cannot work


def test_one_inbox_is_for_one_handler(inbox: Inbox, make_inbox: Callable[..., Inbox]) -> None:
    @inbox.once
    async def book(message: AnyMessage) -> None: ...

    async def ship(message: AnyMessage) -> None: ...

    with pytest.raises(ConfigError, match=r"consumer 'billing' has the handler 'book' already; .* lost to one of them"):
        inbox.once(ship)
    make_inbox("shipping").once(ship)


def test_it_stands_next_to_the_function(inbox: Inbox) -> None:
    broker = KafkaBroker(logger=None)

    @broker.subscriber("orders")
    async def handle(message: KafkaMessage) -> None: ...

    with pytest.raises(ConfigError, match=r"below @broker.subscriber"):
        inbox.once(handle)


async def test_the_handler_needs_one_session_and_one_message(make_inbox: Callable[..., Inbox]) -> None:
    message = StreamMessage(None, b"", headers=HEADERS)
    session = AsyncSession()

    async def handle(*_: Any, **__: Any) -> None: ...

    for arguments, problem in [
        ((session,), "handle was called with no message"),
        ((session, message, message), "handle was called with 2 messages"),
        ((message,), "handle was called with no session"),
        ((message, session, Session()), "handle was called with 2 sessions"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            await make_inbox().once(handle)(*arguments)


async def test_a_message_without_an_identity_is_not_handled(inbox: Inbox) -> None:
    broker = RedisBroker(logger=None)

    @broker.subscriber(list="orders")
    @inbox.once
    async def handle(body: int, message: RedisMessage, session: AsyncSession = Depends(get_session)) -> None:
        raise AssertionError

    with TestInbox():
        async with TestRedisBroker(broker):
            with pytest.raises(NoIdentityError, match="a RedisListMessage without an identity"):
                await broker.publish(1, list="orders")


def test_the_handler_keeps_its_parameters(inbox: Inbox) -> None:
    async def handle(body: int, message: KafkaMessage) -> None:
        """Book."""

    decorated = inbox.once(handle)
    assert inspect.signature(decorated).parameters == inspect.signature(handle).parameters
    assert (decorated.__name__, decorated.__doc__) == ("handle", "Book.")
    assert inspect.iscoroutinefunction(decorated)
