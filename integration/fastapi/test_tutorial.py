"""docs/tutorial.md, as a reader types it: its programs run as processes on a real PostgreSQL and Kafka."""

import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.faults.processes import ChildProcess, run_python
from integration.servers.kafka import KafkaServer
from integration.servers.process import LOOPBACK, ReservedPort
from integration.servers.topics import create_topic, delete_topic

from .shop import eventually

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
PROGRAM = re.compile(r"^```python\n(# (\w+)\.py\n.*?)^```$", re.MULTILINE | re.DOTALL)
TOPIC = "orders.v1"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The reader's folder, with the programs of the page.

    None of pytest's: each run of pytest closes those to other users, and run by root, PostgreSQL is another user.
    """
    programs = PROGRAM.findall(PAGE.read_text(encoding="utf-8"))
    assert {name for _, name in programs} == {"servers", "shop", "billing"}
    with TemporaryDirectory(prefix="tutorial-", ignore_cleanup_errors=True) as folder:
        for program, name in programs:
            (Path(folder) / f"{name}.py").write_text(program, encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            yield


@pytest.fixture
async def variables(kafka_server: KafkaServer, database_url: str, engine: AsyncEngine) -> AsyncIterator[dict[str, str]]:
    """What the reader exports: an empty database, and a Kafka with the topic."""
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE outbox, outbox_dlq"))
    await create_topic(kafka_server.bootstrap, TOPIC, 2)
    try:
        yield {"DATABASE_URL": database_url, "KAFKA_BOOTSTRAP": kafka_server.bootstrap}
    finally:
        await delete_topic(kafka_server.bootstrap, TOPIC)


@asynccontextmanager
async def typed(
    program: str, *arguments: str, variables: dict[str, str], ready: str, has_servers: bool = True
) -> AsyncIterator[ChildProcess]:
    """Run a program, then press Ctrl-C; with its servers, it must end without a complaint."""
    async with run_python("-m", program, *arguments, env=variables, ready=ready, timeout=40) as child:
        yield child
        child.send_signal(signal.SIGINT)
        await child.wait(30)
        assert not has_servers or not any("Traceback" in line for line in child.lines), child.lines


async def scalar(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))


async def test_an_order_is_billed_once(variables: dict[str, str], engine: AsyncEngine) -> None:
    async with run_python("-m", "shop", env=variables, ready=None) as tables:
        assert await tables.wait(40) == 0

    port = ReservedPort()
    served = typed(
        "uvicorn", "shop:app", "--port", str(port.number), variables=variables, ready="Application startup complete"
    )
    async with served, httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port.number}") as client:
        placed = await client.post("/orders/tea")
        assert placed.json() == {"order_id": 1}
        await eventually(lambda: scalar(engine, "SELECT count(*) = 0 FROM outbox"), timeout=40)
    port.release()

    async with typed("billing", variables=variables, ready="order 1 is billed") as billing:
        pass
    assert "1 new, 0 repeated" in billing.lines

    # FastStream logs each message that its subscriber is done with.
    async with typed("billing", variables=variables | {"GROUP": "again"}, ready="Processed") as billing:
        pass
    assert "0 new, 1 repeated" in billing.lines
    assert await scalar(engine, "SELECT count(*) FROM invoices") == 1


async def test_the_shop_starts_without_a_database() -> None:
    """It answers, and goes on trying: the tables are created by a command of their own."""
    port = ReservedPort()
    unused = ReservedPort()
    variables = {
        "DATABASE_URL": f"postgresql+asyncpg://nobody@{LOOPBACK}:{unused.number}/nowhere",
        "KAFKA_BOOTSTRAP": f"{LOOPBACK}:{unused.number}",
    }
    served = typed(
        "uvicorn",
        "shop:app",
        "--port",
        str(port.number),
        variables=variables,
        ready="Application startup complete",
        has_servers=False,
    )
    async with served, httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port.number}") as client:
        assert (await client.get("/openapi.json")).status_code == 200
    port.release()
    unused.release()


async def test_servers_without_docker() -> None:
    async with typed("servers", variables={}, ready="export KAFKA_BOOTSTRAP=") as servers:
        said = dict(re.findall(r"^export (\w+)='?([^']*)'?$", "\n".join(servers.lines), re.MULTILINE))
        async with run_python("-m", "shop", env=said, ready=None) as tables:
            assert await tables.wait(40) == 0
