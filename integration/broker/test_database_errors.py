"""What an operator reads when something around the database is not as it should be: a line with what to do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from integration.servers.missing import missing
from integration.servers.postgres import ContainerPostgres, EmbeddedPostgres, PostgresServer

from .conftest import MakeBroker
from .observing import LogLines, Table, eventually

Say = Callable[..., Awaitable[logging.LogRecord]]

LOGIN, PASSWORD = "outbox_test_login", "right"


@pytest.fixture
def login(postgres_server: PostgresServer, database_url: str) -> Iterator[URL]:
    """The test's database, as somebody who may log in and do nothing."""
    postgres_server.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")
    yield make_url(database_url).set(username=LOGIN, password=PASSWORD)
    postgres_server.execute(f"DROP OWNED BY {LOGIN}", f"DROP ROLE {LOGIN}")


@pytest.fixture
async def say(make_broker: MakeBroker) -> AsyncIterator[Say]:
    """Start a broker with a subscriber, and wait for the first problem in its log."""
    engines: list[AsyncEngine] = []

    async def say(url: URL | str, **options: object) -> logging.LogRecord:
        log = LogLines()
        engine = create_async_engine(url, **options)
        engines.append(engine)
        broker = make_broker(engine, logger=log, graceful_timeout=0.1)

        @broker.subscriber("orders")
        async def handle(body: bytes) -> None: ...

        await broker.start()
        await eventually(lambda: log.at_least(logging.WARNING), within=20)
        # As long as it takes for a second one, if there were a second.
        await asyncio.sleep(0.3)
        await broker.stop()
        [record] = [record for record in log.records if record.levelno >= logging.WARNING]
        return record

    yield say
    for engine in engines:
        await engine.dispose()


def read(record: logging.LogRecord) -> str:
    """The line of a record that has no traceback."""
    assert record.levelno == logging.ERROR
    assert not record.exc_info
    text = record.getMessage()
    assert len(text) < 400
    assert "\n" not in text
    return text


async def test_no_table(say: Say, database_url: str, table: Table) -> None:
    await table.query("ALTER TABLE outbox RENAME TO elsewhere")
    text = read(await say(database_url))
    assert text.startswith('outbox database: relation "outbox" does not exist (SQLSTATE 42P01): run the migration')


async def test_a_column_is_missing(say: Say, database_url: str, table: Table) -> None:
    await table.query("ALTER TABLE outbox DROP COLUMN deliveries_count")
    text = read(await say(database_url))
    assert "deliveries_count" in text
    assert "validate_schema() names each difference" in text


async def test_no_permission(say: Say, login: URL) -> None:
    text = read(await say(login))
    assert "permission denied for table outbox (SQLSTATE 42501): grant" in text
    assert "docs/operating.md" in text


async def test_wrong_password(say: Say, login: URL, postgres_server: PostgresServer) -> None:
    if isinstance(postgres_server, EmbeddedPostgres):
        # Whoever comes from this machine is let in, all but this one.
        rules = postgres_server.data / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"host all {LOGIN} all scram-sha-256\n{before}")
        postgres_server.execute("SELECT pg_reload_conf()")
        try:
            text = read(await say(login.set(password="wrong")))
        finally:
            rules.write_text(before)
            postgres_server.execute("SELECT pg_reload_conf()")
    elif isinstance(postgres_server, ContainerPostgres):
        text = read(await say(login.set(password="wrong")))
    else:
        missing("a PostgreSQL named by the environment may let in everybody")
    assert f'password authentication failed for user "{LOGIN}" (SQLSTATE 28P01): correct the password' in text
    assert "wrong" not in text


async def test_no_database(say: Say, database_url: str) -> None:
    text = read(await say(make_url(database_url).set(database="outbox_test_nowhere")))
    assert 'database "outbox_test_nowhere" does not exist (SQLSTATE 3D000): create the database' in text


async def test_too_many_connections(say: Say, login: URL, postgres_server: PostgresServer) -> None:
    postgres_server.execute(f"ALTER ROLE {LOGIN} CONNECTION LIMIT 0")
    text = read(await say(login))
    assert f'too many connections for role "{LOGIN}" (SQLSTATE 53300): raise the limit (max_connections' in text


async def test_a_server_that_takes_no_writes(say: Say, database_url: str) -> None:
    read_only = {"server_settings": {"default_transaction_read_only": "on"}}
    text = read(await say(database_url, connect_args=read_only))
    assert "read-only transaction (SQLSTATE 25006): a standby takes no writes" in text


async def test_no_server(say: Say, database_url: str) -> None:
    text = read(await say(make_url(database_url).set(port=1)))
    assert "no server listens there: start it, or correct host and port" in text


async def test_an_error_that_nobody_knows_keeps_its_traceback(say: Say, database_url: str, table: Table) -> None:
    await table.query("INSERT INTO outbox (queue, idempotency_key, payload) VALUES ('orders', 'i', '')")
    await table.query(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION E'not\\nto me'; END $$"
    )
    await table.query("CREATE TRIGGER refuse BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()")
    record = await say(database_url)
    assert record.exc_info
    assert "RaiseError: not\\nto me" in record.getMessage()
