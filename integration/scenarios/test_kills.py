"""G1, G2, G3, G4, G8: relays and applications are killed, or stopped one after the other, while rows flow."""

import asyncio
import random
import time
from dataclasses import dataclass

from integration.destinations.kafka import KafkaBox
from integration.faults.crash_points import CRASH_POINTS
from integration.relay import RelayPlan

from .application import running_application
from .fleet import Fleet
from .load import BACKLOG_TRANSACTION
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
    run: Run, topic: KafkaBox, database_url: str, plan: Plan
) -> None:
    options = {"lanes": LANES, "batch_size": BATCH_SIZE}
    relay = RelayPlan.to(topic, database_url=database_url, options=options)
    load = run.load(1, keys=plan.keys, keyless=0.0)
    await load.backlog(plan.rows // 2)
    kills = 0
    async with Fleet(relay, RELAYS, random.Random(1)) as fleet, asyncio.TaskGroup() as tasks:
        began = last = time.monotonic()
        publishing = tasks.create_task(load.backlog(plan.rows - plan.rows // 2))
        while kills < plan.kills_at_least or not publishing.done() or not await run.is_empty():
            if time.monotonic() - last >= plan.kill_every:
                await fleet.kill_one()
                kills, last = kills + 1, time.monotonic()
            if publishing.done() and kills < plan.kills_at_least:
                # The relays are quick on this machine: there must be rows for each of them that is killed.
                publishing = tasks.create_task(load.backlog(BACKLOG_TRANSACTION))
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
    findings = await run.audit(await topic.read())
    record(
        findings,
        "3 relays, one killed every few seconds",
        load=f"{len(await run.book.messages()):,} rows of {plan.keys:,} keys, {plan.rows // 2:,} of them waiting",
        faults=f"{kills} kill -9, one every {plan.kill_every:g} s",
        besides=f"drained in {seconds:.1f} s",
    )
    assert kills >= plan.kills_at_least
    findings.check(repeats_at_most=kills * LANES * BATCH_SIZE)


@dataclass(frozen=True)
class Kills:
    rounds: int
    """Of ten kills: a relay at each of the 4 crash points, 3 relays and 3 applications at random."""


@forms(Kills(2), Kills(10), timeout=900)
async def test_relays_and_applications_are_killed_at_random_and_at_each_crash_point(
    run: Run, topic: KafkaBox, database_url: str, plan: Kills
) -> None:
    draw = random.Random(5)
    options = {"lanes": LANES, "batch_size": BATCH_SIZE}
    relay = RelayPlan.to(topic, database_url=database_url, options=options)
    applications = 0
    async with Fleet(relay, 1, draw) as fleet:
        for number in range(plan.rounds):
            async with asyncio.TaskGroup() as tasks:
                crashes = [tasks.create_task(fleet.crash_one(point, draw.randint(1, 3))) for point in CRASH_POINTS]
                tasks.create_task(_kill_relays(fleet, draw, 3))
                applications += await _kill_applications(database_url, draw, f"{number}-", 3, crashes)
        recovered = await run.drained(within=60)
    findings = await run.audit(await topic.read())
    crashed, killed = plan.rounds * len(CRASH_POINTS), plan.rounds * 3
    record(
        findings,
        "Relays and applications killed",
        load=f"{len(await run.book.messages()):,} rows at up to 500 rows/s",
        faults=f"kill -9: {crashed} of relays at crash points, {killed} of relays and {applications} of applications "
        "at random",
        recovered=recovered,
    )
    findings.check(repeats_at_most=(crashed + killed) * LANES * BATCH_SIZE)


async def _kill_applications(
    database_url: str, draw: random.Random, name: str, at_least: int, crashes: list[asyncio.Task[None]]
) -> int:
    """One after the other; there is always one for as long as relays have to crash, since they need rows for it."""
    kills = 0
    while kills < at_least or not all(crash.done() for crash in crashes):
        seed = draw.randrange(2**32)
        application = running_application(database_url, name=f"{name}{kills}", seed=seed, rows_per_second=500)
        async with application as child:
            await asyncio.sleep(draw.uniform(0.5, 1.5))
            await child.kill()
        kills += 1
    return kills


async def _kill_relays(fleet: Fleet, draw: random.Random, kills: int) -> None:
    for _ in range(kills):
        await fleet.kill_one()
        await fleet.relays[-1].wait_for_line("ready", 60)
        await asyncio.sleep(draw.uniform(0.0, 0.5))


@dataclass(frozen=True)
class Rolling:
    seconds: float
    every: float


@forms(Rolling(8.0, 2.0), Rolling(120.0, 5.0), timeout=600)
async def test_a_rolling_restart_of_three_relays_repeats_nothing(
    run: Run, topic: KafkaBox, database_url: str, plan: Rolling
) -> None:
    relay = RelayPlan.to(topic, database_url=database_url)
    restarts = 0
    async with Fleet(relay, RELAYS, random.Random(8)) as fleet:
        async with run.load(8).flowing(500):
            until = time.monotonic() + plan.seconds
            while time.monotonic() < until:
                await asyncio.sleep(plan.every)
                await fleet.stop_one()
                restarts += 1
        recovered = await run.drained(within=60)
    findings = await run.audit(await topic.read())
    record(
        findings,
        "Rolling restart of 3 relays",
        load=f"500 rows/s for {plan.seconds:g} s",
        faults=f"{restarts} clean stops, one every {plan.every:g} s",
        recovered=recovered,
    )
    findings.check(repeats_at_most=0)
