"""The README's programs, exactly as printed: what a stranger copies must run."""

import asyncio
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import MetaData, Table, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from integration.servers.postgres import PostgresServer
from integration.servers.process import LOOPBACK, ReservedPort

from .shop import eventually

# CI names the interpreter of an environment that holds nothing but what the README says to install.
STRANGERS_PYTHON = os.environ.get("OUTBOX_README_PYTHON", sys.executable)

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database without any table: the program makes its own."""
    name = f"readme_{secrets.token_hex(4)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    try:
        yield postgres_server.url_of(name)
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_the_quickstart(empty_database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "shop.py").write_text(blocks()[0], encoding="utf-8")

    async with _served(folder, empty_database_url) as client, _tables(empty_database_url) as tables:
        placed = await client.post("/orders", json={"item": "tea", "quantity": 2})
        refused = await client.post("/orders", json={"item": "milk", "quantity": 0})
        assert (placed.status_code, refused.status_code) == (200, 409)
        # Committed before the answer was sent.
        orders = await tables.rows("orders")
        assert [(order["item"], order["quantity"]) for order in orders] == [("tea", 2)]

        # The subscriber wrote it, in a session of its own that was open.
        receipts = await eventually(lambda: tables.rows("receipts"))
        await eventually(lambda: tables.count("outbox"), lambda rows: rows == 0)
        assert [receipt["order_id"] for receipt in receipts] == [orders[0]["id"]]
        # By now a row of the refused order would have been handled as well.
        assert await tables.count("orders") == await tables.count("receipts") == 1

        assert "orders" in (await client.get("/asyncapi.json")).text


def test_every_program_compiles() -> None:
    programs = blocks()
    assert len(programs) > 1
    for number, program in enumerate(programs):
        compile(program, f"README.md, python block {number}", "exec")


def test_the_programs_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block after the first continues it: names and arguments exist. Nothing connects yet."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://database.invalid/shop")
    namespace: dict[str, Any] = {"__name__": "shop"}
    # Annotations are looked up in the module that a class says it is from.
    monkeypatch.setitem(sys.modules, "shop", type(sys)("shop"))
    for program in blocks():
        exec(compile(program, "README.md", "exec", dont_inherit=True), namespace)
    assert namespace["app"]


def test_the_readme_stays_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


@asynccontextmanager
async def _served(folder: Path, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve ``shop:app`` of the folder with uvicorn in a process of its own; Ctrl-C must end it without a complaint."""
    port = ReservedPort()
    log = folder / "log.txt"
    command = [STRANGERS_PYTHON, "-m", "uvicorn", "shop:app", "--host", LOOPBACK, "--port", str(port.number)]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env={**os.environ, "DATABASE_URL": database_url}, stdout=output, stderr=output
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port.number}") as client:
            await eventually(lambda: _answers(client, process, log), timeout=30)
            yield client
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            await process.wait()
        text = _text(log)
        assert "Application shutdown complete" in text, text
        assert "Traceback" not in text, text
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        port.release()


async def _answers(client: httpx.AsyncClient, process: asyncio.subprocess.Process, log: Path) -> bool:
    assert process.returncode is None, _text(log)
    try:
        return (await client.get("/openapi.json")).status_code == 200
    except httpx.TransportError:
        return False


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


class _Tables:
    """Looks into a database whose tables another process has made."""

    def __init__(self, engine: Any, metadata: MetaData) -> None:
        self._engine = engine
        self._metadata = metadata

    async def rows(self, name: str) -> list[Any]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(select(self._table(name)))).mappings())

    async def count(self, name: str) -> int:
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(self._table(name))) or 0

    def _table(self, name: str) -> Table:
        return self._metadata.tables[name]


@asynccontextmanager
async def _tables(url: str) -> AsyncIterator[_Tables]:
    engine = create_async_engine(url)
    metadata = MetaData()
    try:
        async with engine.connect() as connection:
            await connection.run_sync(metadata.reflect)
        yield _Tables(engine, metadata)
    finally:
        await engine.dispose()
