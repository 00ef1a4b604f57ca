"""The contract of docs/sql.md, as printed: rows of SQL and of other languages are handled at once, and arrive whole.

``OUTBOX_READERS`` names a folder with the libraries of Node and Go: see ``make readers``.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from integration.broker.observing import Inbox, Table, eventually
from integration.broker.test_grants import granted_to, site_of
from integration.destinations.base import Box
from integration.servers.postgres import PostgresServer

from .carrying import Publishing
from .test_readers import command, running

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
SQL = "\n".join(re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
_, *_PARTS = re.split(r"^-- ([\w ]+)$", SQL, flags=re.MULTILINE)
STATEMENTS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))
LIBRARIES = os.environ.get("OUTBOX_READERS")
PROGRAMS = re.findall(r"^```(javascript|go)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if LIBRARIES else []

FAR = {"min_fetch_interval": 30.0, "max_fetch_interval": 30.0}
"""What is handled within seconds was woken."""


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database for each test, as roles and a function are made in it."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
async def publisher(
    observer_engine: AsyncEngine, outbox_table: SqlTable, dlq_table: SqlTable
) -> AsyncIterator[AsyncEngine]:
    """An engine of a role that may publish, and nothing else."""
    privileges = granted_to("publisher", "publisher with tee", "publisher with timers")
    async with site_of(observer_engine, [outbox_table, dlq_table], privileges) as site:
        yield site.engine


async def run(engine: AsyncEngine, *names: str, **changes: str) -> list[Any]:
    """Run statements of the page in one transaction, with parts replaced, and return the rows of the last."""
    rows: list[Any] = []
    async with engine.begin() as connection:
        for name in names:
            statement = STATEMENTS[name]
            for before, after in changes.items():
                assert before in statement
                statement = statement.replace(before, after)
            result = await connection.exec_driver_sql(statement)
            rows = list(result.all()) if result.returns_rows else []
    return rows


@pytest.fixture
def handled(broker: OutboxBroker) -> Inbox:
    inbox = Inbox()

    @broker.subscriber(["orders", "reminders"], **FAR)
    async def handle(body: dict[str, int]) -> None:
        inbox.add(body)

    return inbox


async def fall_asleep(broker: OutboxBroker) -> None:
    """Start, and wait until it hears and has looked for the last time in a long while."""
    await broker.start()
    await eventually(lambda: broker.config.broker_config.runtime.hears, within=10)
    await asyncio.sleep(0.3)


async def test_a_row_is_handled_at_once(
    broker: OutboxBroker, handled: Inbox, publisher: AsyncEngine, table: Table
) -> None:
    await fall_asleep(broker)
    assert [len(row) for row in await run(publisher, "publish")] == [2]
    assert await handled.wait_for(1) == [{"order_id": 1}]
    assert len(await run(publisher, "publish once")) == 1
    await handled.wait_for(2)
    await run(publisher, "set a timer", hour="millisecond")
    await handled.wait_for(3)
    await eventually(table.is_empty)


async def test_a_row_without_the_notification_waits_for_the_next_look(
    broker: OutboxBroker, handled: Inbox, publisher: AsyncEngine
) -> None:
    """So what the other tests see is the notification's work."""
    await fall_asleep(broker)
    async with publisher.begin() as connection:
        await connection.exec_driver_sql(STATEMENTS["publish"].partition("RETURNING")[0])
    await asyncio.sleep(1.0)
    assert not handled.bodies
    await run(publisher, "publish")
    await handled.wait_for(2)


async def test_the_function_publishes_once(
    broker: OutboxBroker, handled: Inbox, publisher: AsyncEngine, observer_engine: AsyncEngine, table: Table
) -> None:
    await fall_asleep(broker)
    await run(observer_engine, "function")
    [[row_id]] = await run(publisher, "call")
    assert await handled.wait_for(1) == [{"order_id": 1}]
    await eventually(table.is_empty)
    await broker.stop()
    # The key is free again when the message is delivered.
    [[second]] = await run(publisher, "call")
    assert second > row_id
    assert await run(publisher, "call") == [(None,)]
    [row] = await table.rows()
    assert (row.key, row.idempotency_key, row.deduplicate) == ("customer-7", "order-1-placed", True)


async def test_a_live_row_makes_another_a_duplicate(publisher: AsyncEngine, table: Table) -> None:
    assert len(await run(publisher, "publish once", "publish once")) == 0
    assert await table.count() == 1


async def test_a_timer_is_cancelled(publisher: AsyncEngine, publishing: Publishing, table: Table) -> None:
    await run(publisher, "set a timer")
    assert await run(publisher, "set a timer") == []
    [row] = await table.rows()
    assert row.next_attempt_at - row.created_at > timedelta(minutes=59)
    # A timer of SQL and one of publish are the same.
    assert await publishing.one(1, queue="reminders", timer_id="order-1") is None
    await run(publisher, "cancel a timer")
    assert await table.is_empty()


OWN = {"idempotency-key", "outbox-id", "outbox-created-at", "correlation_id", "message_id"}
"""Headers whose values are a message's own."""


@pytest.mark.parametrize("box", ["redis-stream"], indirect=True)
async def test_what_arrives_is_what_publish_sends(
    box: Box, broker: OutboxBroker, publisher: AsyncEngine, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=box.publisher())
    async with box.beside() as copies:
        broker.forwarder("orders", to=copies.publisher(), name="redis:orders", tee=True)
        assert broker.copies_of("orders") == ["orders=>redis:orders"]
        await broker.start()
        await publishing.one({"order_id": 1}, key="customer-7")
        await run(publisher, "publish")
        await run(publisher, "publish with a copy")
        await eventually(table.is_empty)
        of_publish, of_sql, copied = await box.received(3)
        [copy] = await copies.received(1)
    assert {json.loads(each.body)["order_id"] for each in (of_publish, of_sql, copied, copy)} == {1}
    assert of_sql.key == of_publish.key == "customer-7"
    assert of_sql.headers.keys() == of_publish.headers.keys() - {"correlation_id"}
    for name in of_sql.headers.keys() - OWN:
        assert of_sql.headers[name] == of_publish.headers[name], name
    assert re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", of_sql.identity)
    # JSON without a content type is called JSON, and a copy differs in its id alone.
    assert copy.headers | {"outbox-id": copied.headers["outbox-id"]} == copied.headers
    assert copied.headers["content-type"] == "application/json"
    assert (copy.key, copy.body) == (copied.key, copied.body)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("language", "text"), PROGRAMS, ids=[language for language, _ in PROGRAMS])
async def test_another_language_publishes(
    broker: OutboxBroker, handled: Inbox, publisher: AsyncEngine, language: str, text: str
) -> None:
    url = make_url(publisher.url).set(drivername="postgresql").render_as_string(hide_password=False)
    assert text.count("postgresql://localhost:5432/shop") == 1
    # A module's libraries are found from its folder.
    folder = Path(LIBRARIES or "") / f"sql-{language}"
    folder.mkdir(exist_ok=True)
    program = folder / ("publisher.js" if language == "javascript" else "publisher.go")
    program.write_text(text.replace("postgresql://localhost:5432/shop", url), encoding="utf-8")
    await fall_asleep(broker)
    async with asyncio.timeout(200), running(command(language, program), folder) as output:
        assert re.fullmatch(rb"row \d+\n", await output.readline())
    assert await handled.wait_for(1) == [{"order_id": 1}]
