"""One connection of a process on which PostgreSQL says which queues have new rows."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox.schema import MAX_IDENTIFIER_BYTES

PROBE_SECONDS = 2.0
"""A notification to oneself takes milliseconds; one that has not come by then is not coming."""


def channel_of(table: Table) -> str:
    """Name the NOTIFY channel of a table; schemas do not share one."""
    name = f"outbox:{table.schema or ''}:{table.name}"
    if len(name.encode()) <= MAX_IDENTIFIER_BYTES:
        return name
    return f"outbox:{hashlib.sha256(name.encode()).hexdigest()[:40]}"


class PostgresListener:
    """Yields the name of a queue for each notification; raises when the connection is lost."""

    def __init__(self) -> None:
        self._signals: asyncio.Queue[str | None] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._read()

    async def _read(self) -> AsyncIterator[str]:
        while (signal := await self._signals.get()) is not None:
            yield signal
        msg = "the connection that listens for new rows was lost"
        raise ConnectionResetError(msg)

    def on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._signals.put_nowait(str(payload))

    def on_termination(self, _connection: object) -> None:
        self._signals.put_nowait(None)

    async def hears(self, probe: str, *, within: float) -> bool:
        """Wait for a notification that was sent to oneself; what came before it stays to be read."""
        early: list[str | None] = []
        try:
            async with asyncio.timeout(within):
                while (signal := await self._signals.get()) != probe:
                    early.append(signal)
        except TimeoutError:
            return False
        finally:
            for signal in early:
                self._signals.put_nowait(signal)
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
        listener = PostgresListener()
        await connection.execute(statements.listen_presence, {"token": token})
        driver.add_termination_listener(listener.on_termination)
        try:
            await driver.add_listener(channel, listener.on_notification)
            probe = f"probe:{uuid.uuid4()}"
            await driver.execute("SELECT pg_notify($1, $2)", channel, probe)
            heard = await listener.hears(probe, within=PROBE_SECONDS)
            yield listener if heard else None
        finally:
            driver.remove_termination_listener(listener.on_termination)
            if not driver.is_closed():
                # The pool never sees this connection again; what it listens to and holds ends with it.
                await driver.close(timeout=PROBE_SECONDS)
