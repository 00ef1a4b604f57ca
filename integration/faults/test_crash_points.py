"""Each crash point kills where its name says: seen in what the destination has, and what the table keeps."""

import signal

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.destinations.redis import StreamBox
from integration.relay import RelayPlan, running_relay
from integration.scenarios.run import Run
from integration.servers.redis import RedisServer


@pytest.mark.parametrize(
    ("point", "sent", "left"),
    [("before send", 1, 1), ("after send", 2, 1), ("before commit", 2, 1), ("after commit", 2, 0)],
)
async def test_a_crash_in_the_second_hand_over(
    engine: AsyncEngine,
    outbox_table: Table,
    database_url: str,
    redis_server: RedisServer,
    redis_key: str,
    point: str,
    sent: int,
    left: int,
) -> None:
    run = Run(engine, outbox_table)
    await run.book.open()
    load = run.load(1)
    stream = StreamBox(redis_server, redis_key)
    plan = RelayPlan.to(stream, database_url=database_url, crash_point=point, crash_number=2)
    async with running_relay(plan) as relay:
        await load.backlog(1)
        await run.drained(within=15)
        assert relay.returncode is None
        await load.backlog(1)
        assert await relay.wait(30) == -signal.SIGKILL
    assert len(await stream.read()) == sent
    assert await run.table.count() == left
