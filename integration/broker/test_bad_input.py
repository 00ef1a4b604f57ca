"""G10: bad input is refused at publish with one clear error, nothing is written, the transaction stays usable."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import InvalidMessageError, InvalidSessionError, OutboxBroker, Outgoing

from .conftest import MakeBroker
from .observing import Table

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - that is what is wrong with it
AWARE = datetime(2030, 1, 1, tzinfo=UTC)
KIB_32 = 32 * 1024

# What is wrong: arguments of publish that differ from good ones, and the parts of the one error.
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "queue empty": ({"queue": ""}, ("queue:", "1 to 255 bytes")),
    "queue too long": ({"queue": "q" * 256}, ("queue:", "1 to 255 bytes", "256")),
    "queue too long in UTF-8": ({"queue": "é" * 128}, ("queue:", "255", "256")),
    "queue not a str": ({"queue": 7}, ("queue:", "int")),
    "queue None": ({"queue": None}, ("queue:", "NoneType")),
    "queue with a control character": ({"queue": "a\nb"}, ("queue:", "control character U+000A")),
    "key with a control character": ({"key": "a\x1b[2K"}, ("key:", "control character U+001B")),
    "idempotency key with a control character": (
        {"idempotency_key": "a\u2028b"},
        ("idempotency_key:", "control character U+2028"),
    ),
    "correlation id with a control character": (
        {"correlation_id": "a\x85"},
        ("correlation_id:", "control character U+0085"),
    ),
    "header that says where to reply": ({"headers": {"Reply_To": "x"}}, ("headers:", "Reply_To", "FastStream")),
    "body with NaN": ({"body": {"a": [float("nan")]}}, ("body:", "NaN", "JSON")),
    "queue with NUL": ({"queue": "a\x00b"}, ("queue:", "NUL")),
    "queue with a lone surrogate": ({"queue": "a\ud800"}, ("queue:", "surrogate")),
    "key empty": ({"key": ""}, ("key:", "1 to 1024 bytes")),
    "key too long": ({"key": "k" * 1025}, ("key:", "1024", "1025")),
    "key not a str": ({"key": b"k"}, ("key:", "bytes")),
    "key with NUL": ({"key": "\x00"}, ("key:", "NUL")),
    "idempotency key empty": ({"idempotency_key": ""}, ("idempotency_key:", "1 to 255 bytes")),
    "idempotency key too long": ({"idempotency_key": "i" * 256}, ("idempotency_key:", "255", "256")),
    "idempotency key not a str": ({"idempotency_key": 5}, ("idempotency_key:", "int")),
    "timer id empty": ({"timer_id": ""}, ("timer_id:", "1 to 255 bytes")),
    "timer id too long": ({"timer_id": "t" * 256}, ("timer_id:", "255")),
    "correlation id too long": ({"correlation_id": "c" * 256}, ("correlation_id:", "255")),
    "correlation id not a str": ({"correlation_id": 7}, ("correlation_id:", "int")),
    "headers not a mapping": ({"headers": [("a", "b")]}, ("headers:", "mapping", "list")),
    "headers a str": ({"headers": "abc"}, ("headers:", "mapping", "str")),
    "header name empty": ({"headers": {"": "v"}}, ("headers:", "name", "1 to 255 bytes")),
    "header name too long": ({"headers": {"n" * 256: "v"}}, ("headers:", "name", "255", "256")),
    "header name not a str": ({"headers": {1: "v"}}, ("headers:", "name", "int")),
    "header name with NUL": ({"headers": {"a\x00": "v"}}, ("headers:", "name", "NUL")),
    "header name reserved": ({"headers": {"outbox-id": "1"}}, ("headers:", "outbox-id")),
    "header value an int": ({"headers": {"n": 1}}, ("headers:", "'n'", "int")),
    "header value None": ({"headers": {"n": None}}, ("headers:", "'n'", "NoneType")),
    "header value bytes": ({"headers": {"n": b"v"}}, ("headers:", "'n'", "bytes")),
    "header value NaN": ({"headers": {"n": float("nan")}}, ("headers:", "'n'", "NaN")),
    "header value with NUL": ({"headers": {"n": "a\x00"}}, ("headers:", "'n'", "NUL")),
    "header value with a lone surrogate": ({"headers": {"n": "\udfff"}}, ("headers:", "'n'", "surrogate")),
    "headers too large": ({"headers": {"n": "v" * KIB_32}}, ("headers:", str(KIB_32), str(KIB_32 + 1))),
    "activate_at naive": ({"activate_at": NAIVE}, ("activate_at:", "timezone-aware")),
    "activate_at not a datetime": ({"activate_at": "2030-01-01"}, ("activate_at:", "str")),
    "activate_in not a timedelta": ({"activate_in": 5}, ("activate_in:", "int")),
    "activate_in negative": ({"activate_in": timedelta(seconds=-1)}, ("activate_in:", "between 0 and")),
    "activate_in too long": ({"activate_in": timedelta(days=3651)}, ("activate_in:", "3650")),
    "both activate_in and activate_at": (
        {"activate_in": timedelta(1), "activate_at": AWARE},
        ("activate_in", "activate_at", "not both"),
    ),
    "body that cannot be encoded": ({"body": {"object": object()}}, ("body:", "cannot be encoded")),
    "body with a lone surrogate": ({"body": "\ud800"}, ("body:", "cannot be encoded", "surrogates")),
    "body too large": ({"body": b"x" * 2001}, ("body:", "2001", "max_payload_bytes", "2000")),
    "body too large when encoded": ({"body": "é" * 1001}, ("body:", "2002", "max_payload_bytes")),
}


@pytest.fixture
def broker(make_broker: MakeBroker) -> OutboxBroker:
    return make_broker(max_payload_bytes=2000)


async def by_publish(broker: OutboxBroker, session: AsyncSession, body: Any, **arguments: Any) -> Any:
    return await broker.publish(body, session=session, **arguments)


async def by_batch(broker: OutboxBroker, session: AsyncSession, body: Any, **arguments: Any) -> Any:
    """A good message before the bad one: the statement is for all or none."""
    return await broker.publish_batch("good", body, session=session, **arguments)


async def by_outgoing(broker: OutboxBroker, session: AsyncSession, body: Any, *, queue: str, **own: Any) -> Any:
    return await broker.publish_batch("good", Outgoing(body, **own), queue=queue, session=session)


async def by_publisher(broker: OutboxBroker, session: AsyncSession, body: Any, *, queue: str, **arguments: Any) -> Any:
    return await broker.publisher(queue).publish(body, session=session, **arguments)


WAYS: dict[Callable[..., Any], set[str]] = {
    by_publish: {
        "queue",
        "key",
        "idempotency_key",
        "timer_id",
        "correlation_id",
        "headers",
        "activate_at",
        "activate_in",
    },
    by_batch: {"queue", "key", "correlation_id", "headers", "activate_at", "activate_in"},
    by_outgoing: {"queue", "key", "idempotency_key", "headers"},
    # A bad queue is refused when the publisher is declared.
    by_publisher: {"key", "idempotency_key", "timer_id", "correlation_id", "headers", "activate_at", "activate_in"},
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_g10_every_bad_argument_is_refused_and_the_transaction_goes_on(
    broker: OutboxBroker, session: AsyncSession, table: Table, way: Callable[..., Any]
) -> None:
    """All cases in one transaction: it must survive each of them."""
    tried = 0
    for name, (wrong, parts) in BAD.items():
        if not wrong.keys() - {"body"} <= WAYS[way]:
            continue
        arguments = {"body": {"n": 1}, "queue": "orders"} | wrong
        print(name)
        with pytest.raises(InvalidMessageError) as refused:
            await way(broker, session, arguments.pop("body"), **arguments)
        assert [part for part in parts if part not in str(refused.value)] == [], name
        await broker.publish("after", queue="orders", session=session)
        tried += 1
    await session.commit()
    assert tried > len(BAD) / 2
    assert [bytes(row.payload) for row in await table.rows()] == [b"after"] * tried


async def test_g10_what_is_just_within_the_limits_is_taken(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    for _ in range(2):  # the second is a duplicate: long keys fit into the indexes as well
        await broker.publish(
            b"x" * 2000,
            queue="q" * 255,
            session=session,
            key="é" * 512,
            idempotency_key="i" * 255,
            timer_id="t" * 255,
            correlation_id="c" * 255,
            headers={"n" * 255: "v" * (KIB_32 - 255)},
            activate_in=timedelta(days=3650),
        )
    await session.commit()
    assert await table.count() == 1


class Closed:
    """Sessions that are none, or no more."""

    @staticmethod
    async def nothing(engine: AsyncEngine) -> Any:
        return None

    @staticmethod
    async def engine(engine: AsyncEngine) -> Any:
        return engine

    @staticmethod
    async def class_of_sessions(engine: AsyncEngine) -> Any:
        return AsyncSession

    @staticmethod
    async def synchronous_session(engine: AsyncEngine) -> Any:
        return AsyncSession(engine).sync_session

    @staticmethod
    async def closed_session(engine: AsyncEngine) -> Any:
        session = AsyncSession(engine, close_resets_only=False)
        await session.close()
        return session

    @staticmethod
    async def closed_connection(engine: AsyncEngine) -> Any:
        connection = await engine.connect()
        await connection.close()
        return connection

    @staticmethod
    async def connection_not_started(engine: AsyncEngine) -> Any:
        return engine.connect()


@pytest.mark.parametrize("key", [None, "k"], ids=["without key", "with key"])
@pytest.mark.parametrize(
    "make",
    [
        Closed.nothing,
        Closed.engine,
        Closed.class_of_sessions,
        Closed.synchronous_session,
        Closed.closed_session,
        Closed.closed_connection,
        Closed.connection_not_started,
    ],
)
async def test_g10_what_is_no_open_session_is_refused_with_a_type_error(
    broker: OutboxBroker, engine: AsyncEngine, table: Table, make: Any, key: str | None
) -> None:
    session = await make(engine)
    for publish in (broker.publish, broker.publish_batch, broker.publisher("orders").publish):
        queue = {} if publish not in (broker.publish, broker.publish_batch) else {"queue": "orders"}
        with pytest.raises(InvalidSessionError, match="session") as refused:
            await publish({}, session=session, key=key, **queue)
        assert isinstance(refused.value, TypeError)
    for call in (
        broker.cancel_timer(queue="orders", timer_id="t", session=session),
        broker.fetch_unprocessed(session=session),
    ):
        with pytest.raises(InvalidSessionError, match="session"):
            await call
    assert await table.is_empty()


async def test_g10_a_session_after_the_end_of_its_begin_block_is_refused(
    broker: OutboxBroker, session: AsyncSession
) -> None:
    async with session.begin():
        await session.commit()
        with pytest.raises(InvalidSessionError, match="session"):
            await broker.publish({}, queue="orders", session=session)


@pytest.mark.parametrize("key", [None, "k"])
async def test_g10_publish_sync_refuses_asynchronous_sessions(
    broker: OutboxBroker, session: AsyncSession, key: str | None
) -> None:
    for wrong in (session, None):
        with pytest.raises(InvalidSessionError, match="session"):
            broker.publish_sync({}, queue="orders", session=wrong, key=key)  # type: ignore[arg-type]


@pytest.fixture
def sqlite() -> Iterator[Any]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


async def test_g10_another_database_is_refused(broker: OutboxBroker, sqlite: Any) -> None:
    with pytest.raises(InvalidSessionError, match="PostgreSQL, got sqlite"):
        broker.publish_sync({}, queue="orders", session=sqlite)


@pytest.mark.parametrize("way", ["publish", "publish_batch", "publish_sync"])
async def test_g10_an_argument_that_does_not_exist_is_refused(
    broker: OutboxBroker, session: AsyncSession, way: str
) -> None:
    with pytest.raises(TypeError, match=rf"{way}\(\) got an unexpected keyword argument 'delay'"):
        await asyncio.wait_for(getattr(broker, way)({}, queue="orders", session=session, delay=5), timeout=5)


async def test_g10_the_default_limit_of_a_body_is_one_mib(make_broker: MakeBroker, session: AsyncSession) -> None:
    broker = make_broker()
    assert await broker.publish(b"x" * 2**20, queue="orders", session=session)
    with pytest.raises(InvalidMessageError, match=r"body: is 1048577 bytes encoded, .*max_payload_bytes is 1048576"):
        await broker.publish(b"x" * (2**20 + 1), queue="orders", session=session)


class Texts:
    """A codec that keeps its promise badly."""

    async def encode(self, msg: Any, serializer: Any = None) -> Any:
        return str(msg), None

    async def decode(self, msg: Any) -> Any:
        return msg.body


async def test_g10_a_codec_that_gives_no_bytes_is_named(
    make_broker: MakeBroker, session: AsyncSession, table: Table
) -> None:
    broker = make_broker(codec=Texts())
    with pytest.raises(InvalidMessageError, match=r"body: cannot be encoded: Texts gave str instead of bytes"):
        await broker.publish("x", queue="orders", session=session)


async def test_g10_errors_of_the_database_pass_through_as_they_are(broker: OutboxBroker, session: AsyncSession) -> None:
    with pytest.raises(ProgrammingError, match="does not exist"):
        await session.execute(text("SELECT * FROM nowhere"))
    with pytest.raises(DBAPIError, match="current transaction is aborted"):
        await broker.publish({}, queue="orders", session=session)


@pytest.mark.parametrize(("argument", "value"), [("timer_id", "a\x00b"), ("timer_id", ""), ("queue", "q" * 256)])
async def test_g10_cancel_timer_refuses_names_that_no_message_could_have(
    make_broker: MakeBroker, engine: AsyncEngine, argument: str, value: str
) -> None:
    names = {"queue": "orders", "timer_id": "t", argument: value}
    broker = make_broker()
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(InvalidMessageError, match=argument):
            await broker.cancel_timer(**names, session=session)
        assert await broker.publish({}, queue="orders", session=session) is not None
