"""Counts what an engine asks of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

STATEMENTS = "statements"
ROUND_TRIPS = "round trips"
WAL_BYTES = "WAL bytes"

CHUNK = 64 * 1024


class RoundTripProxy:
    """Forwards connections to a server and counts how often a client spoke after the server had answered.

    Args:
        host: The server's.
        port: The server's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.round_trips = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        is_answered = True

        async def to_server() -> None:
            nonlocal is_answered
            while chunk := await reader.read(CHUNK):
                self.round_trips += is_answered
                is_answered = False
                upstream_writer.write(chunk)
            upstream_writer.close()

        async def to_client() -> None:
            nonlocal is_answered
            while chunk := await upstream_reader.read(CHUNK):
                is_answered = True
                writer.write(chunk)
            writer.close()

        try:
            await asyncio.gather(to_server(), to_client())
        except OSError:
            pass
        finally:
            writer.close()
            upstream_writer.close()
            self._tasks.discard(task)


class Counts:
    """What was asked of the server since it was made.

    Args:
        engine: Its statements are counted; BEGIN and COMMIT are not, but their round trips are.
        proxy: Before the server.
        observer: A connection around the proxy.
    """

    def __init__(self, engine: AsyncEngine, proxy: RoundTripProxy, observer: Any) -> None:
        self._proxy = proxy
        self._observer = observer
        self._statements = 0
        event.listen(engine.sync_engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self._statements += 1

    async def so_far(self) -> dict[str, float]:
        """Give all numbers as they are now."""
        # PostgreSQL's counter, of the whole server: nobody else may write in the meantime.
        wal = await self._observer.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'")
        return {STATEMENTS: self._statements, ROUND_TRIPS: self._proxy.round_trips, WAL_BYTES: int(wal)}


@asynccontextmanager
async def counted(database_url: str) -> AsyncIterator[tuple[AsyncEngine, Counts]]:
    """Give an engine on a database, and the counts of what it does.

    Raises:
        RuntimeError: The server writes full pages into its WAL, so that its bytes say nothing about the work.
    """
    url = make_url(database_url)
    observer = await asyncpg.connect(_dsn(url))
    try:
        if await observer.fetchval("SHOW full_page_writes") == "on":
            raise RuntimeError("WAL can only be counted on a server with full_page_writes=off")
        await observer.execute("CHECKPOINT")
        await observer.execute("ALTER TABLE outbox SET (autovacuum_enabled = false)")
        async with RoundTripProxy(url.host or "127.0.0.1", url.port or 5432) as proxy:
            engine = create_async_engine(url.set(host="127.0.0.1", port=proxy.port))
            try:
                yield engine, Counts(engine, proxy, observer)
            finally:
                await engine.dispose()
    finally:
        await observer.close()


def _dsn(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
