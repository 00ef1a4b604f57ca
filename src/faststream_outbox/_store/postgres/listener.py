"""One connection of a process on which PostgreSQL says which queues have new rows."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import MetaData, Row, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.announcing import read
from faststream_outbox._store.postgres.apart import connection_apart
from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox._store.protocol import Announcement, PausesChanged
from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox.schema import MAX_IDENTIFIER_BYTES

PROBE = SEPARATOR
"""What probes begin with, and no queue's name does."""

PROBE_SECONDS = 5.0
"""A notification takes milliseconds, or a moment on a busy server; one that has not come by then is not coming."""

CLOSE_SECONDS = 2.0
"""How long a connection may take to say goodbye."""

HEARTBEAT_SECONDS = 15.0
"""The server is asked for an answer after so long a silence. Firewalls and load balancers forget connections that are
idle for a minute or more, and tell neither end."""

ANSWER_SECONDS = 10.0
"""A connection without an answer by then is given up."""

_NOTIFY = text("SELECT pg_notify(:channel, :payload)")
_LEAVE = text("SELECT pg_advisory_unlock_shared(hashtextextended(:token, 0))")


def channel_of(table: Table) -> str:
    """Name the NOTIFY channel that publishers use; schemas do not share one.

    Publishers that call a table differently, with its schema or without, have different channels, and consumers listen
    to both. They listen already to the channel of what the table is (its oid), whatever it is called. The next release
    lets publishers use that one alone; in this one, consumers of earlier versions must still hear them.
    """
    name = f"outbox:{quote_table(table)}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    return f"outbox:{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def channels_of(table: Table, found: Row[Any]) -> set[str]:
    """Name all channels on which publishers may ring for a table.

    Args:
        table: As it is declared here.
        found: What ``listen_presence.sql`` says of it.
    """
    channels = {channel_of(table)}
    if found.oid is not None:
        schemas = [found.nspname, None] if found.is_visible else [found.nspname]
        names = [Table(found.relname, MetaData(), schema=schema) for schema in schemas]
        # A table's own name would be quoted if it consisted of digits.
        channels |= {f"outbox:{found.oid}", *map(channel_of, names)}
    return channels


class PostgresListener:
    """Yields the name of a queue, or an announcement, for each notification.

    It raises when the connection is lost, or no longer answers.

    Args:
        driver: asyncpg's connection.
        backend: The server's process at the other end.
    """

    def __init__(self, driver: Any, backend: int) -> None:
        self.probe = f"{PROBE}{secrets.token_hex(8)}"
        """What it waits for to know that notifications arrive."""
        self._driver = driver
        self._backend = backend
        self._signals: asyncio.Queue[str | Announcement | PausesChanged | None] = asyncio.Queue()
        self._answered = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[str | Announcement | PausesChanged]:
        return self._read()

    async def _read(self) -> AsyncIterator[str | Announcement | PausesChanged]:
        while (signal := await self._next_signal()) is not None:
            yield signal
        msg = "the connection that listens for new rows was lost"
        raise ConnectionResetError(msg)

    async def _next_signal(self) -> str | Announcement | PausesChanged | None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    return await self._signals.get()
            except TimeoutError:
                await self._ask()

    async def _ask(self) -> None:
        """Raise unless the server is still there, and still the one that notifies."""
        asking = asyncio.create_task(self._driver.fetchval("SELECT pg_backend_pid()"), name="outbox-heartbeat")
        try:
            await asyncio.wait([asking], timeout=ANSWER_SECONDS)
        finally:
            if not asking.done():
                # To cancel it instead, asyncpg would open a connection to a server that cannot be reached.
                self._driver.terminate()
                await asyncio.wait([asking])
        if asking.exception() is not None:
            msg = "the connection that listens for new rows does not answer any more"
            raise ConnectionResetError(msg) from asking.exception()
        if asking.result() != self._backend:
            msg = "a pooler has put another connection behind the one that listens for new rows"
            raise ConnectionResetError(msg)

    def on_notification(self, _connection: object, _backend: int, _channel: str, payload: object) -> None:
        if payload == self.probe:
            self._answered.set()
        elif not str(payload).startswith(PROBE):
            self._signals.put_nowait(str(payload))
        elif (announcement := read(str(payload))) is not None:
            self._signals.put_nowait(announcement)

    def on_termination(self, _connection: object) -> None:
        self._signals.put_nowait(None)

    async def is_answered(self, *, within: float) -> bool:
        """Wait for the probe."""
        try:
            async with asyncio.timeout(within):
                await self._answered.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def listen(
    engine: AsyncEngine,
    statements: Statements,
    table: Table,
    token: str,
) -> AsyncIterator[PostgresListener | None]:
    """Hold a connection beside the engine's pool, with the presence of ``token`` on it, and listen there.

    After a break, a pool all of whose connections are with handlers must not keep the presence from coming back.
    """
    async with connection_apart(engine.execution_options(isolation_level="AUTOCOMMIT")) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        listener: PostgresListener | None = None
        try:
            parameters = {"token": token, "table": quote_table(table)}
            found = (await connection.execute(statements.listen_presence, parameters)).one()
            channels = channels_of(table, found)
            listener = PostgresListener(driver, found.backend)
            driver.add_termination_listener(listener.on_termination)
            for channel in channels:
                await driver.add_listener(channel, listener.on_notification)
            # By another connection: what is sent by this one comes back with the statement's answer, even through a
            # pooler that has nothing more for it afterwards.
            async with connection_apart(engine) as other, other.begin():
                await other.execute(_NOTIFY, {"channel": channel_of(table), "payload": listener.probe})
            if await listener.is_answered(within=PROBE_SECONDS):
                # Not before: a setting must not stay on a connection that a pooler gives to others.
                await connection.execute(statements.listen_forever)
                yield listener
                return
            # So that a pooler's connection does not go on listening, if it is the same one still.
            for channel in channels:
                await driver.remove_listener(channel, listener.on_notification)
            await connection.execute(_LEAVE, {"token": token})
            yield None
        finally:
            if listener is not None:
                driver.remove_termination_listener(listener.on_termination)
            if not driver.is_closed():
                # What it listens to and holds ends with it.
                await driver.close(timeout=CLOSE_SECONDS)
