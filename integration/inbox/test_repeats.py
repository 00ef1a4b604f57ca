"""Relays and consumers die while messages flow: copies come twice, and each effect is in the consumer's table once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Table as SqlTable

from integration.broker.observing import Table, eventually
from integration.destinations.kinds import BOXES
from integration.faults.crash_points import CRASH_POINTS
from integration.faults.processes import ChildProcess
from integration.relay import RelayPlan, running_relay
from integration.scenarios.fleet import Fleet
from integration.scenarios.run import Run, forms

from .consumer import ConsumerPlan, running_consumer

BATCH_SIZE = 20
UNDONE = "SELECT count(*) AS n FROM book WHERE NOT EXISTS (SELECT 1 FROM effects WHERE effects.key = identity)"
MORE_THAN_ONCE = "SELECT key, count(*) FROM effects GROUP BY key HAVING count(*) > 1"
REPEATS = "SELECT count(*) - count(DISTINCT key) AS n FROM deliveries"


@dataclass(frozen=True)
class Way:
    """From an outbox through a broker to a consumer in the same database."""

    relay: RelayPlan
    consumer: ConsumerPlan


@pytest.fixture
async def way(request: pytest.FixtureRequest, inbox_table: SqlTable, database_url: str) -> AsyncIterator[Way]:
    kind = BOXES[request.param]
    options = {"lanes": 2, "batch_size": BATCH_SIZE}
    async with kind.open(request.getfixturevalue(str(kind.server_fixture))) as box:
        yield Way(
            RelayPlan.to(box, database_url=database_url, options=options),
            ConsumerPlan(database_url=database_url, kind=box.kind, server=box.url, source=box.name),
        )


def through(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", kinds, indirect=True)


async def _effects_are_complete(table: Table) -> None:
    """Wait for all effects, as long as new ones come: a consumer group that has lost a member rests for seconds."""
    left = (await table.query(UNDONE))[0].n
    while left:
        before = left

        async def is_less(before: int = before) -> bool:
            return (await table.query(UNDONE))[0].n < before

        await eventually(is_less, within=60)
        left = (await table.query(UNDONE))[0].n


async def judge(table: Table, *, repeats: int) -> None:
    """Each message of the book has one effect, whereas so many copies at least came more than once."""
    await _effects_are_complete(table)
    assert await table.query(MORE_THAN_ONCE) == []
    [row] = await table.query("SELECT (SELECT count(*) FROM effects) AS done, (SELECT count(*) FROM book) AS published")
    assert row.done == row.published
    await eventually(lambda: _repeats(table, repeats), within=30)
    # What came last was a repeat, perhaps: it had no effect either.
    assert await table.query(MORE_THAN_ONCE) == []


async def _repeats(table: Table, at_least: int) -> bool:
    return (await table.query(REPEATS))[0].n >= at_least


@asynccontextmanager
async def consumers(plan: ConsumerPlan, count: int) -> AsyncIterator[list[ChildProcess]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_consumer(plan)) for _ in range(count)]


@through("rabbit", "kafka", "redis-stream")
@pytest.mark.timeout(240)
async def test_a_relay_dies_at_each_crash_point(way: Way, run: Run, table: Table) -> None:
    async with Fleet(way.relay, 0, random.Random(1)) as fleet, consumers(way.consumer, 1):
        for point in CRASH_POINTS:
            await run.load(1, name=point.replace(" ", "-")).backlog(3 * BATCH_SIZE)
            await fleet.crash_one(point)
        async with running_relay(way.relay):
            await run.drained(within=60)
            # What was sent and not settled was sent again, at two of the four points.
            await judge(table, repeats=2)


@dataclass(frozen=True)
class Kills:
    relays: int
    consumers: int


@through("rabbit", "kafka")
@forms(Kills(3, 2), Kills(30, 30), timeout=1800)
async def test_relays_and_consumers_are_killed_at_random(way: Way, run: Run, table: Table, plan: Kills) -> None:
    draw = random.Random(2)
    failing = replace(way.consumer, failing=7)
    async with Fleet(way.relay, 2, draw) as fleet, consumers(failing, 1), AsyncExitStack() as stack:
        async with run.load(2).flowing(50):
            for number in range(max(plan.relays, plan.consumers)):
                if number < plan.relays:
                    await asyncio.sleep(draw.uniform(0.2, 0.8))
                    await fleet.kill_one()
                if number < plan.consumers:
                    point = draw.choice(("before commit", "after commit"))
                    async with running_consumer(
                        replace(failing, crash=point, crash_number=draw.randint(2, 12))
                    ) as dying:
                        await dying.wait(60)
            # Rows are in flight for certain when this one dies.
            await fleet.crash_one("after send")
        await run.drained(within=60)
        await stack.enter_async_context(running_consumer(way.consumer))
        await judge(table, repeats=plan.consumers)


@through("rabbit", "kafka")
@pytest.mark.parametrize(("crash", "done"), [("before commit", 0), ("after commit", 1)])
async def test_a_consumer_dies_around_its_commit(way: Way, run: Run, table: Table, crash: str, done: int) -> None:
    """The broker delivers again what was committed and not acknowledged, and it is a repeat."""
    dying = replace(way.consumer, crash=crash)
    async with Fleet(way.relay, 1, random.Random(3)):
        async with running_consumer(dying) as consumer:
            await run.load(3).backlog(1)
            assert await consumer.wait(30) < 0
        assert await table.count(name="effects") == done
        async with running_consumer(way.consumer):
            await judge(table, repeats=1)


@through("redis-stream")
async def test_two_consumers_race_for_each_copy_and_one_of_them_fails_now_and_then(
    way: Way, run: Run, table: Table
) -> None:
    """Without a group, each reads every entry of the stream: both have each message at the same time."""
    messages = 200
    async with (
        Fleet(way.relay, 1, random.Random(4)),
        running_consumer(replace(way.consumer, failing=5)),
        running_consumer(way.consumer),
    ):
        await run.load(4).backlog(messages)
        await judge(table, repeats=messages)
    assert await table.count(name="deliveries") == 2 * messages
