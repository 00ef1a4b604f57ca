"""The same service under other servers and event loops, and with others that look into it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.fastapi.shop import Shop
from integration.servers.process import LOOPBACK, ReservedPort

APPLICATION = "integration.neighbours.application:app"
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def served(database_url: str, log: Path, *command: str, **environment: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a server of the application; it must end without a complaint."""
    port = ReservedPort()
    text = [part.format(port=port.number) for part in command]
    environment = {**os.environ, "DATABASE_URL": database_url, **environment}
    with log.open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            sys.executable, *text, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port.number}", timeout=20) as client:
            await eventually(lambda: _answers(client, server, log), within=30)
            yield client
        server.terminate()
        async with asyncio.timeout(20):
            await server.wait()
    finally:
        if server.returncode is None:
            os.killpg(server.pid, signal.SIGKILL)
            await server.wait()
        port.release()


async def _answers(client: httpx.AsyncClient, server: asyncio.subprocess.Process, log: Path) -> bool:
    assert server.returncode is None, _text(log)
    try:
        return (await client.get("/openapi.json")).status_code == 200
    except httpx.TransportError:
        return False


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


GUNICORN = ("-m", "gunicorn", APPLICATION, "--preload", "-w", "2", "-k", "asgi", "-b", f"{LOOPBACK}:{{port}}")
UVICORN = ("-m", "uvicorn", APPLICATION, "--host", LOOPBACK, "--port", "{port}")


async def test_gunicorn_forks_after_the_engine_was_used(
    database_url: str, shop: Shop, table: Table, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    async with served(database_url, log, *GUNICORN, NEIGHBOURS="used-before-fork") as client:
        processes: set[int] = set()
        for number in range(60):
            # A connection each, so that both workers get some.
            async with httpx.AsyncClient(base_url=client.base_url) as another:
                answer = await another.post("/orders", params={"item": f"item-{number}"})
            processes.add(answer.json()["process"])
        await eventually(table.is_empty, within=20)
        assert len(processes) == 2
        assert sorted(await shop.notes()) == sorted(f"item-{number} " for number in range(60))
        tokens = await table.query(
            "SELECT DISTINCT objid FROM pg_locks WHERE locktype = 'advisory' AND mode LIKE 'Share%'"
        )
        assert len(tokens) == 2, "each process shows by a lock of its own that it lives"
    assert "Traceback" not in _text(log), _text(log)


async def test_opentelemetry_of_fastapi_sqlalchemy_and_asyncpg_together(
    database_url: str, shop: Shop, table: Table, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    async with served(database_url, log, *UVICORN, NEIGHBOURS="otel") as client:
        for number in range(5):
            assert (await client.post("/orders", params={"item": f"item-{number}"})).status_code == 200
        await eventually(table.is_empty)
        traces = {note.split()[1] for note in await shop.notes()}
        assert len(traces) == 5, "a message carries the trace of its request"
        spans = (await client.get("/seen")).json()["spans"]
        of_requests = {span.split()[0] for span in spans if span.endswith(" POST /orders")}
        assert traces == of_requests
        # asyncpg's span: publishing does not pass through SQLAlchemy's cursor.
        its_spans = [span.split(maxsplit=1)[1] for span in spans if span.split()[0] == min(traces)]
        assert "INSERT" in its_spans, its_spans
    assert "Traceback" not in _text(log), _text(log)


async def test_sentry_hears_of_a_failing_handler_and_disturbs_nothing(
    database_url: str, shop: Shop, table: Table, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    async with served(database_url, log, *UVICORN, NEIGHBOURS="sentry") as client:
        for item in ("good", "bad", "fine"):
            assert (await client.post("/orders", params={"item": item})).status_code == 200
        await eventually(lambda: _is_left(table, 1))
        await eventually(lambda: _has_seen(client, "LookupError"))
    assert sorted(note.split()[0] for note in await shop.notes()) == ["fine", "good"]


async def _is_left(table: Table, dead: int) -> bool:
    return await table.count() == await table.count("failed_at IS NOT NULL") == dead


async def _has_seen(client: httpx.AsyncClient, event: str) -> bool:
    return event in (await client.get("/seen")).json()["events"]


@pytest.mark.parametrize("kind", ["handlers", "forwarder"])
async def test_uvloop(
    kind: str, database_url: str, outbox_table: SqlTable, kafka_server: Any, kafka_topic: str, table: Table
) -> None:
    """Everything in a loop of uvloop's, in a thread of its own: start, publish, carry, stop."""
    handled: list[bytes] = []

    async def work() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        engine = create_async_engine(database_url)
        broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
        if kind == "handlers":

            @broker.subscriber("orders", max_workers=4)
            async def handle(body: bytes) -> None:
                handled.append(body)
        else:
            from faststream.kafka import KafkaBroker

            kafka = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
            broker.forwarder("orders", to=kafka.publisher(kafka_topic))
        await broker.start()
        async with engine.begin() as connection:
            messages = [Outgoing(b"m%d" % number, key="k") for number in range(300)]
            await broker.publish_batch(*messages, queue="orders", session=connection)
        await eventually(lambda: _nothing_is_left(engine), within=30)
        await broker.stop()
        await engine.dispose()

    async def _nothing_is_left(engine: Any) -> bool:
        return await Table(engine).is_empty()

    await asyncio.to_thread(uvloop.run, work())
    if kind == "handlers":
        assert sorted(handled) == sorted(b"m%d" % number for number in range(300))
