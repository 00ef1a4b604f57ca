"""What an application teaches its driver about JSON changes nothing of a message's headers."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Table, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import NoRetry, OutboxBroker, OutboxRow, Outgoing
from faststream_outbox.annotations import OutboxMessage

from .observing import Inbox, eventually
from .observing import Table as Observed

HEADERS = {"x": 'é"\\'}


def codec(**options: Any) -> Callable[[AsyncEngine], None]:
    def prepare(engine: AsyncEngine) -> None:
        @event.listens_for(engine.sync_engine, "connect")
        def connect(driver: Any, _record: Any) -> None:
            for kind in ("json", "jsonb"):
                driver.run_async(lambda raw, kind=kind: raw.set_type_codec(kind, schema="pg_catalog", **options))

    return prepare


def nothing(_engine: AsyncEngine) -> None:
    """Leave an engine as it is."""


ENGINES: dict[str, tuple[dict[str, Any], Callable[[AsyncEngine], None]]] = {
    "asyncpg's documentation": ({}, codec(encoder=json.dumps, decoder=json.loads)),
    "serializers of bytes": (
        {"json_serializer": lambda value: json.dumps(value).encode(), "json_deserializer": json.loads},
        codec(format="binary", encoder=lambda value: b"\x01" + value, decoder=lambda value: json.loads(value[1:])),
    ),
    "serializer of bytes alone": (
        {"json_serializer": lambda value: json.dumps(value).encode(), "json_deserializer": json.loads},
        nothing,
    ),
    "serializer that leaves it to the codec": (
        {"json_serializer": lambda value: value, "json_deserializer": lambda value: value},
        codec(encoder=json.dumps, decoder=json.loads),
    ),
}


@pytest.fixture(params=ENGINES.values(), ids=ENGINES.keys())
async def taught(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[AsyncEngine]:
    options, prepare = request.param
    engine = create_async_engine(database_url, **options)
    prepare(engine)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("tee", [False, True], ids=["alone", "with copies"])
async def test_headers_arrive_as_they_were_published(
    taught: AsyncEngine, outbox_table: Table, dlq_table: Table, table: Observed, inbox: Inbox, tee: bool
) -> None:
    broker = OutboxBroker(taught, outbox_table=outbox_table, dlq_table=dlq_table, logger=None)
    if tee:
        broker.config.producer._copies = lambda queue: [f"{queue}=>copy"]

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: int, message: OutboxMessage) -> None:
        inbox.add((body, message.headers.get("x")))
        if body == 0:
            raise ValueError

    async with AsyncSession(taught) as session, session.begin():
        await broker.publish(0, queue="orders", session=session, headers=HEADERS)
        await broker.publish(1, queue="orders", session=session, headers=HEADERS, idempotency_key="i")
        await broker.publish_batch(Outgoing(2, headers=HEADERS), 3, queue="orders", session=session)
        seen: list[OutboxRow] = [*await broker.fetch_unprocessed(session=session, queue="orders")]
        assert [row.headers.get("x") for row in seen] == [HEADERS["x"]] * 3 + [None]
    kinds = await table.query("SELECT jsonb_typeof(headers) AS kind, headers ->> 'x' AS x FROM outbox")
    assert {kind.kind for kind in kinds} == {"object"}
    assert sorted(kind.x or "" for kind in kinds) == sorted((["", *[HEADERS["x"]] * 3]) * (2 if tee else 1))
    await broker.start()
    try:
        await inbox.wait_for(4)
        await eventually(lambda: table.count("queue = 'orders'", "outbox_dlq"))
    finally:
        await broker.stop()
    assert sorted(inbox.bodies) == [(0, HEADERS["x"]), (1, HEADERS["x"]), (2, HEADERS["x"]), (3, None)]
    [letter] = await broker.dead_letters.list(queue="orders")
    assert letter.row.headers["x"] == HEADERS["x"]
    assert await broker.dead_letters.replay(queue="orders") == 1
    [replayed] = await table.query("SELECT headers ->> 'x' AS x FROM outbox WHERE queue = 'orders'")
    assert replayed.x == HEADERS["x"]
