"""G2, G3, G4: relays are killed while a backlog of many keys goes through them."""

import asyncio
import random
import time
from dataclasses import dataclass

from integration.ledger.destinations import TopicArrivals

from .fleet import Fleet
from .relay import RelayPlan
from .results import record
from .run import Run, forms

RELAYS = 3
LANES = 2
BATCH_SIZE = 50
"""Small, so that the relays are at work for long enough to be killed many times."""


@dataclass(frozen=True)
class Plan:
    rows: int
    keys: int
    kill_every: float
    kills_at_least: int


@forms(Plan(20_000, 1000, 1.0, 2), Plan(100_000, 1000, 3.0, 4), timeout=600)
async def test_three_relays_one_of_which_is_killed_again_and_again(
    run: Run, topic: TopicArrivals, database_url: str, plan: Plan
) -> None:
    options = {"lanes": LANES, "batch_size": BATCH_SIZE}
    relay = RelayPlan(database_url=database_url, kind="kafka", server=topic.bootstrap, to=topic.name, options=options)
    load = run.load(1, keys=plan.keys, keyless=0.0)
    await load.backlog(plan.rows // 2)
    kills = 0
    async with Fleet(relay, RELAYS, random.Random(1)) as fleet, asyncio.TaskGroup() as tasks:
        began = last = time.monotonic()
        publishing = tasks.create_task(load.backlog(plan.rows - plan.rows // 2))
        while not publishing.done() or not await run.table.is_empty():
            if time.monotonic() - last >= plan.kill_every:
                await fleet.kill_one()
                kills, last = kills + 1, time.monotonic()
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
    findings = await run.audit(topic)
    record(
        findings,
        "3 relays, one killed every few seconds",
        load=f"{plan.rows:,} rows of {plan.keys:,} keys, half of them waiting",
        faults=f"{kills} kill -9, one every {plan.kill_every:g} s",
        besides=f"drained in {seconds:.1f} s",
    )
    assert kills >= plan.kills_at_least
    findings.check(repeats_at_most=kills * LANES * BATCH_SIZE)
