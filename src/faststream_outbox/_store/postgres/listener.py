"""One connection of a process on which PostgreSQL says which queues have new rows."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox.schema import MAX_IDENTIFIER_BYTES

PROBE = ""
"""What a listener sends to itself: no queue has this name, and whose it is shows in the sender's process."""

PROBE_SECONDS = 2.0
"""A notification to oneself takes milliseconds; one that has not come by then is not coming."""

HEARTBEAT_SECONDS = 15.0
"""After so long without a word the server is asked for one. Firewalls and load balancers forget connections that are
idle for a minute or more, and tell neither end."""

ANSWER_SECONDS = 10.0
"""A connection without an answer by then is given up."""


def channel_of(table: Table) -> str:
    """Name the NOTIFY channel of a table; schemas do not share one."""
    name = f"outbox:{quote_table(table)}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    return f"outbox:{hashlib.sha256(name.encode()).hexdigest()[:40]}"


class PostgresListener:
    """Yields the name of a queue for each notification; raises when the connection is lost, or no longer answers.

    Args:
        driver: asyncpg's connection.
        backend: The server's process at the other end.
    """

    def __init__(self, driver: Any, backend: int) -> None:
        self._driver = driver
        self._backend = backend
        self._signals: asyncio.Queue[str | None] = asyncio.Queue()
        self._answered = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._read()

    async def _read(self) -> AsyncIterator[str]:
        while (signal := await self._next_signal()) is not None:
            yield signal
        msg = "the connection that listens for new rows was lost"
        raise ConnectionResetError(msg)

    async def _next_signal(self) -> str | None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    return await self._signals.get()
            except TimeoutError:
                await self._ask()

    async def _ask(self) -> None:
        """Make sure that the server is still there."""
        asking = asyncio.create_task(self._driver.execute("SELECT 1"), name="outbox-heartbeat")
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

    def on_notification(self, _connection: object, backend: int, _channel: str, payload: object) -> None:
        if payload != PROBE:
            self._signals.put_nowait(str(payload))
        elif backend == self._backend:
            self._answered.set()

    def on_termination(self, _connection: object) -> None:
        self._signals.put_nowait(None)

    async def is_answered(self, *, within: float) -> bool:
        """Wait for the notification that was sent to oneself."""
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
    channel: str,
    token: str,
) -> AsyncIterator[PostgresListener | None]:
    """Hold a connection out of the engine's pool, with the presence of ``token`` on it, and listen there.

    Taking it from the engine honours the engine's ``connect_args``, creator and events; detaching it gives its place
    in the pool back.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.run_sync(Connection.detach)
        listener: PostgresListener | None = None
        # From here on the pool will not close it any more, however this ends.
        try:
            presence = await connection.execute(statements.listen_presence, {"token": token})
            listener = PostgresListener(driver, presence.one().backend)
            driver.add_termination_listener(listener.on_termination)
            await driver.add_listener(channel, listener.on_notification)
            await driver.execute("SELECT pg_notify($1, $2)", channel, PROBE)
            yield listener if await listener.is_answered(within=PROBE_SECONDS) else None
        finally:
            if listener is not None:
                driver.remove_termination_listener(listener.on_termination)
            if not driver.is_closed():
                # What it listens to and holds ends with it.
                await driver.close(timeout=PROBE_SECONDS)
