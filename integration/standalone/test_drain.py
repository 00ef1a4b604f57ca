"""When a relay that drains leaves, with the privileges of a consumer, and what it says while it waits."""

import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import MetaData, Table

from faststream_outbox import make_outbox_control_table
from faststream_outbox._store.postgres.ddl import Work, grants
from faststream_outbox.admin import make_admin
from faststream_outbox.relay import drain
from faststream_outbox.relay.relay import Relay
from integration.destinations.base import Box

from .conftest import Source, Write, database, forwarder, running

ROLE = "outbox_relay_of_a_test"
TABLES = "dlq_table = 'outbox_dlq'\ncontrol_table = 'outbox_control'"


@pytest.fixture
def control_table() -> Table:
    return make_outbox_control_table(MetaData())


@pytest.fixture
async def consumer(
    source: Source, outbox_table: Table, dlq_table: Table, control_table: Table
) -> AsyncIterator[Source]:
    """The database, for a role that has what the page gives to a consumer, and no more."""
    statements = grants(Work.CONSUMER, outbox_table, dlq_table, role=ROLE, control_table=control_table)
    async with source.engine.begin() as connection:
        await connection.run_sync(control_table.create)
        await connection.exec_driver_sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'secret'")
        for statement in statements.split(";"):
            if statement.strip():
                await connection.exec_driver_sql(statement)
    url = source.engine.url.set(username=ROLE, password="secret")
    given = Source(url.render_as_string(hide_password=False), outbox_table)
    yield given
    await given.engine.dispose()
    async with source.engine.begin() as connection:
        await connection.exec_driver_sql(f"DROP OWNED BY {ROLE}")
        await connection.exec_driver_sql(f"DROP ROLE {ROLE}")


async def test_the_privileges_of_a_consumer_are_enough(
    source: Source, consumer: Source, box: Box, write: Write
) -> None:
    await source.load().backlog(20)
    file = write(database("shop", consumer, forwarder(box), more=TABLES))
    async with running(file, "--drain", ready=None) as relay:
        assert await relay.wait(60) == 0, relay.lines
    await source.check(box)
    assert not any("what is left waits" in line for line in relay.lines), relay.lines


@pytest.mark.parametrize("kind", ["queue", "forwarder"])
async def test_a_pause_is_said_once(
    source: Source, box: Box, write: Write, outbox_table: Table, control_table: Table, kind: str
) -> None:
    async with source.engine.begin() as connection:
        await connection.run_sync(control_table.create)
    await source.load().backlog(20)
    admin = make_admin(source.engine, outbox_table=outbox_table, control_table=control_table)
    scope = {"queue": "orders"} if kind == "queue" else {"forwarder": "mine"}
    await admin.pause(**scope, by="ann", why="month end")  # type: ignore[arg-type]
    file = write(database("shop", source, forwarder(box, more="name = 'mine'"), more=TABLES))
    async with running(file, "--drain", ready=None) as relay:
        line = await relay.wait_for_line("what is left waits", 30)
        assert "paused" in line
        assert "by ann" in line
        assert "month end" in line
        await admin.resume(**scope)  # type: ignore[arg-type]
        assert await relay.wait(60) == 0, relay.lines
    assert sum("what is left waits" in line for line in relay.lines) == 1, relay.lines
    await source.check(box)


async def test_who_may_not_look_is_told_so_once(source: Source, consumer: Source, box: Box, write: Write) -> None:
    async with source.engine.begin() as connection:
        await connection.exec_driver_sql(f"REVOKE ALL ON outbox FROM {ROLE}")
    file = write(database("shop", consumer, forwarder(box), more=TABLES))
    async with running(file, "--drain", "--within", "4", ready=None) as relay:
        assert await relay.wait(60) == 1
    said = [line for line in relay.lines if "what is left waits: shop: permission denied" in line]
    assert len(said) == 1, relay.lines


async def test_queues_behind_many_others_are_seen(
    source: Source, box: Box, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "MOST_QUEUES", 2)
    for number in range(5):
        await source.load(queue=f"a{number}", name=f"a{number}").backlog(1)
    await source.load(queue="orders", name="o").backlog(3)
    relay = Relay(write(database("shop", source, forwarder(box))), logging.getLogger("test"))
    for each in relay.databases:
        each.bound(relay.budget)
    try:
        assert await relay.left() == ["shop: 'orders' has 3 rows to be sent, and 0 to be tried again"]
    finally:
        await relay.stop()
