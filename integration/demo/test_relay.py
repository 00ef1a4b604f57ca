"""``python -m demo.relay`` on real servers: what the destinations are given, and what Prometheus sees of it."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from faststream_outbox import OutboxBroker
from integration.broker.observing import eventually
from integration.destinations.rabbit import QueueBox
from integration.servers.kafka import KafkaServer
from integration.servers.process import LOOPBACK, ReservedPort
from integration.servers.rabbitmq import RabbitServer
from integration.servers.redis import RedisServer
from integration.servers.topics import create_topic, delete_topic, read_topic

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
async def topic(kafka_server: KafkaServer) -> AsyncIterator[str]:
    await create_topic(kafka_server.bootstrap, "orders.v1", partitions=3)
    yield "orders.v1"
    await delete_topic(kafka_server.bootstrap, "orders.v1")


@pytest.fixture
async def mailbox(rabbit_server: RabbitServer) -> AsyncIterator[QueueBox]:
    async with QueueBox.declared(rabbit_server, "receipts") as mailbox:
        yield mailbox


@pytest.fixture
def port() -> Iterator[int]:
    port = ReservedPort()
    yield port.number
    port.release()


@pytest.fixture
def process(
    *,
    database_url: str,
    kafka_server: KafkaServer,
    topic: str,
    rabbit_server: RabbitServer,
    redis_server: RedisServer,
    port: int,
) -> Iterator[None]:
    """A relay that is stopped as a container's engine does it."""
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP": kafka_server.bootstrap,
        "RABBITMQ_URL": rabbit_server.url,
        "REDIS_URL": redis_server.url,
        "PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "demo.relay"], cwd=CHECKOUT, env=environment)
    try:
        yield
        process.terminate()
        process.wait(10)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def relay(process: None, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a relay that runs."""
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client:
        await eventually(lambda: _is_healthy(client), within=30)
        yield client


async def test_messages_reach_their_destinations_and_are_counted(
    relay: httpx.AsyncClient,
    engine: AsyncEngine,
    outbox_table: Table,
    session_factory: async_sessionmaker[AsyncSession],
    kafka_server: KafkaServer,
    mailbox: QueueBox,
    redis_server: RedisServer,
) -> None:
    publishing = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    async with session_factory() as session, session.begin():
        for queue in ("orders", "receipts", "stock"):
            await publishing.publish_batch(*({"order_id": n} for n in range(5)), queue=queue, session=session)

    assert len(await read_topic(kafka_server.bootstrap, "orders.v1", expected=5)) == 5
    assert len(await mailbox.messages(5)) == 5
    async with redis_server.client() as client:
        await eventually(lambda: _is_long(client, 5))
        await client.delete("stock")

    await eventually(lambda: _has_accepted(relay, 15))
    await eventually(lambda: _has_looked(relay))
    samples = await _scrape(relay)
    forwarders = {labels["forwarder"] for labels, _ in samples["outbox_forwarder_messages_total"]}
    assert len(forwarders) == 3
    assert "outbox_dead_letters_total" not in samples
    states = {labels["forwarder"]: labels["state"] for labels, value in samples["outbox_forwarder_state"] if value}
    assert states == dict.fromkeys(forwarders, "flowing")
    assert (await relay.get("/livez")).json() == {"state": "ok", "problems": []}


async def test_foreign_hosts_are_refused(relay: httpx.AsyncClient) -> None:
    assert (await relay.get("/metrics", headers={"Host": "shop.example"})).status_code == 421
    assert (await relay.get("/metrics")).status_code == 200


async def _is_healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).is_success
    except httpx.TransportError:
        return False


async def _is_long(client: Redis, length: int) -> bool:
    return await client.xlen("stock") == length


async def _has_accepted(client: httpx.AsyncClient, expected: int) -> bool:
    samples = (await _scrape(client)).get("outbox_forwarder_messages_total", [])
    return sum(value for labels, value in samples if labels["verdict"] == "accepted") == expected


async def _has_looked(client: httpx.AsyncClient) -> bool:
    """Whether the tables were looked at after the messages were gone."""
    samples = await _scrape(client)
    return "outbox_look_age_seconds" in samples and all(value == 0.0 for _, value in samples.get("outbox_rows", []))


async def _scrape(client: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Read the page as Prometheus does."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(response.raise_for_status().text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples
