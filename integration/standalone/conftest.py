import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from integration.destinations import box_class
from integration.destinations.base import Box
from integration.faults.processes import ChildProcess, run_python
from integration.ledger.book import Book
from integration.ledger.ledger import audit
from integration.scenarios.load import Load
from integration.servers.postgres import PostgresServer
from integration.servers.process import LOOPBACK, ReservedPort

Running = Callable[..., AbstractAsyncContextManager[ChildProcess]]
Write = Callable[[str], Path]

READY = "the relay runs"


class Source:
    """A database that a relay carries from, with what publishes there."""

    def __init__(self, url: str, outbox_table: Table) -> None:
        self.url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.engine: AsyncEngine = create_async_engine(url)
        self.book = Book(self.engine)
        self._table = outbox_table

    def load(self, **options: Any) -> Load:
        return Load(self.engine, self._table, seed=1, **options)

    async def value(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return (await connection.exec_driver_sql(statement)).scalar_one()

    async def check(self, box: Box, *, repeats_at_most: int = 0) -> None:
        """Compare what was committed with what has arrived in a box; nothing may be left in the table."""
        assert await self.value("SELECT count(*) FROM outbox") == 0
        audit(await self.book.messages(), await box.read()).check(repeats_at_most=repeats_at_most)


@pytest.fixture
def sources(postgres_server: PostgresServer, outbox_table: Table) -> Iterator[Callable[[], Any]]:
    """Makes databases, each with a book."""
    with ExitStack() as stack:

        async def make() -> Source:
            source = Source(stack.enter_context(postgres_server.database()), outbox_table)
            await source.book.open()
            return source

        yield make


@pytest.fixture
async def source(sources: Callable[[], Any]) -> AsyncIterator[Source]:
    source = await sources()
    yield source
    await source.engine.dispose()


@pytest.fixture
async def other_source(sources: Callable[[], Any]) -> AsyncIterator[Source]:
    source = await sources()
    yield source
    await source.engine.dispose()


@pytest.fixture
def open_box(request: pytest.FixtureRequest) -> Callable[[str], AbstractAsyncContextManager[Box]]:
    """Opens a box of a kind, on the session's server."""

    @asynccontextmanager
    async def open_box(kind: str) -> AsyncIterator[Box]:
        boxes = box_class(kind)
        server = request.getfixturevalue(str(boxes.server_fixture))
        async with boxes.open(server) as box:
            yield box

    return open_box


@pytest.fixture
async def box(open_box: Callable[[str], AbstractAsyncContextManager[Box]]) -> AsyncIterator[Box]:
    """A stream of Redis."""
    async with open_box("redis-stream") as box:
        yield box


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port at which nobody listens."""
    port = ReservedPort()
    yield port.number
    port.release()


@pytest.fixture
def free_ports() -> Callable[[int], int]:
    """Returns the first of some ports in a row at which nobody listens."""

    def find(count: int) -> int:
        for _ in range(100):
            ports = ReservedPort()
            first = ports.number
            ports.release()
            if all(_is_free(first + number) for number in range(count)):
                return first
        raise AssertionError("no ports are free")

    return find


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "relay.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write


def database(name: str, source: Source, *forwarders: str, more: str = "") -> str:
    """A database of a relay's file."""
    tables = "".join(f"[[databases.{name}.forwarders]]\n{forwarder}\n" for forwarder in forwarders)
    return f"[databases.{name}]\nurl = '{source.url}'\n{more}\n{tables}"


def forwarder(box: Box, queue: str = "orders", more: str = "") -> str:
    """A forwarder of a relay's file."""
    return f"queues = '{queue}'\n{DESTINATIONS[box.kind](box)}\n{more}\n"


DESTINATIONS: dict[str, Callable[[Box], str]] = {
    "kafka": lambda box: f"to = 'kafka://{box.url}'\ntopic = '{box.name}'",
    "rabbit": lambda box: f"to = '{box.url}'\nrouting_key = '{box.name}'",
    "redis-stream": lambda box: f"to = '{box.url}'\nstream = '{box.name}'",
}


def running(file: Path, *arguments: str, ready: str | None = READY, **options: Any) -> Any:
    """Run a relay, and wait until it runs."""
    return run_python(
        "-m", "faststream_outbox", "relay", str(file), *arguments, ready=ready, **{"timeout": 60.0, **options}
    )
