"""G10, G11: random messages are refused with a clear error, arrive byte for byte, or stand in the dead letters."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox.exceptions import InvalidMessageError
from integration.destinations.rabbit import QueueBox
from integration.destinations.troubles import open_box
from integration.ledger.book import Letter, enter
from integration.relay import RelayPlan, running_relay
from integration.servers.kafka import KafkaServer
from integration.servers.rabbitmq import RabbitServer
from integration.servers.redis import RedisServer

from .fuzz import QUEUES, Case, Fuzz
from .results import record
from .run import Run, forms

BATCH_SIZE = 100


@pytest.fixture(params=["kafka_server", "rabbit_server", "redis_server"], ids=["kafka", "rabbit", "redis"])
def server(request: pytest.FixtureRequest) -> KafkaServer | RabbitServer | RedisServer:
    return request.getfixturevalue(request.param)


@forms(400, 10_000, timeout=900)
async def test_random_messages(
    run: Run,
    engine: AsyncEngine,
    outbox_table: Table,
    database_url: str,
    server: KafkaServer | RabbitServer | RedisServer,
    plan: int,
) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    fuzz = Fuzz(11)
    refused: Counter[str] = Counter()
    async with open_box(server) as box:
        options = {"batch_size": BATCH_SIZE}
        relay = RelayPlan.to(
            box, database_url=database_url, url=box.proxied_url, queues=QUEUES, dead_letters=True, options=options
        )
        async with running_relay(relay) as child:
            for number in range(plan):
                try:
                    await _publish(engine, broker, f"fuzz-{number}", fuzz.case())
                except InvalidMessageError as error:
                    refused[str(error).partition(":")[0]] += 1
            await run.load(11).backlog(1)
            await run.drained(within=60)
            assert child.returncode is None, "the relay is still there"
            restarts = sum("ready" in line for line in child.lines) - 1
        dead = {row.idempotency_key: row.failure_reason for row in await run.table.rows("outbox_dlq")}
        findings = await run.audit(await box.read(), dead=dead)
    total = sum(refused.values())
    record(
        findings,
        f"{box.kind}: random messages",
        load=f"{plan:,} random bodies, headers, keys and queue names",
        faults="none",
        besides=f"{total} refused at publish, {len(dead)} dead letters, the rest arrived",
    )
    assert restarts == 0
    assert refused.keys() <= {"body", "queue", "key", "headers"}
    assert 0 < total < plan / 2
    assert all(dead.values()), "each with its reason"
    # RabbitMQ closes the channel over a message that is too large: what was in flight on it is sent again.
    findings.check(repeats_at_most=len(dead) * BATCH_SIZE if isinstance(box, QueueBox) else 0)


async def _publish(engine: AsyncEngine, broker: OutboxBroker, identity: str, case: Case) -> None:
    async with engine.begin() as connection:
        options: dict[str, Any] = {"key": case.key, "headers": case.headers, "idempotency_key": identity}
        row_id = await broker.publish(case.body, queue=case.queue, session=connection, **options)
        row = await connection.execute(text("SELECT payload FROM outbox WHERE id = :id"), {"id": row_id})
        letter = Letter(identity, case.key, row.scalar_one(), case.headers)
        await enter(connection, case.queue, [letter])
