"""Looking at what happens, with deadlines instead of sleeps."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

NAP_SECONDS = 0.01


async def eventually(is_so: Callable[[], Any], *, within: float = 5.0) -> Any:
    """Ask until the answer is true, and return it; the answer may have to be awaited."""
    deadline = time.monotonic() + within
    while True:
        answer = is_so()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not so within {within} s: {is_so}"
        await asyncio.sleep(0.01)


class Machine:
    """How long the machine has kept this process waiting at its worst: seconds that no code could have saved."""

    def __init__(self) -> None:
        self.worst_lag = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(NAP_SECONDS)
            self.worst_lag = max(self.worst_lag, time.monotonic() - began - NAP_SECONDS)


@asynccontextmanager
async def watched_machine() -> AsyncIterator[Machine]:
    """Measure the machine beside a promise in seconds: one that stalls has not broken it."""
    machine = Machine()
    watching = asyncio.create_task(machine.watch())
    try:
        yield machine
    finally:
        watching.cancel()
        await asyncio.wait([watching])


class Inbox:
    """What handlers received, and when (by ``time.monotonic``)."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.times: list[float] = []

    def add(self, body: Any) -> None:
        self.bodies.append(body)
        self.times.append(time.monotonic())

    async def wait_for(self, count: int, *, within: float = 5.0) -> list[Any]:
        await eventually(lambda: len(self.bodies) >= count, within=within)
        return self.bodies

    @property
    def counts(self) -> Counter[Any]:
        return Counter(self.bodies)


class Table:
    """The outbox and the dead letters of a test's database, seen from outside of the broker."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def rows(self, name: str = "outbox") -> list[Any]:
        return await self.query(f"SELECT * FROM {name} ORDER BY id")

    async def count(self, where: str = "true", name: str = "outbox") -> int:
        return (await self.query(f"SELECT count(*) AS n FROM {name} WHERE {where}"))[0].n

    async def is_empty(self) -> bool:
        return await self.count() == 0

    async def query(self, sql: str, **values: Any) -> list[Any]:
        async with self._engine.begin() as connection:
            result = await connection.execute(text(sql), values)
            return list(result.all()) if result.returns_rows else []


class LogLines(logging.Logger):
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        super().__init__("outbox of a test", logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def handle(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def at_least(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= level]

    def containing(self, part: str) -> list[str]:
        return [record.getMessage() for record in self.records if part in record.getMessage()]


class Traffic:
    """Counts what an engine sends: statements, and attempts to connect."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.statements: list[str] = []
        self.connects = 0
        event.listen(engine.sync_engine, "do_connect", self._on_connect)
        # An engine with execution options has events of its own; all of them meet in the class.
        event.listen(Engine, "before_cursor_execute", self._on_statement)

    def close(self) -> None:
        event.remove(Engine, "before_cursor_execute", self._on_statement)

    def _on_connect(self, *_: Any) -> None:
        self.connects += 1

    def _on_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.statements.append(statement)
