"""G7: a process is stopped for twice its lease and woken up; by then others have its rows, and it changes nothing."""

import asyncio
import random
from dataclasses import dataclass

import pytest

from integration.destinations.redis import StreamBox
from integration.relay import WORKERS, RelayPlan

from .fleet import Fleet
from .results import record
from .run import Run, forms

LEASE = 1.0
CLAIMED_AHEAD = 2 * 10
"""Rows of two claims at most."""


@dataclass(frozen=True)
class Plan:
    pauses: int


@pytest.mark.parametrize("how", ["forwarder", "handler"])
@forms(Plan(1), Plan(6), timeout=300)
async def test_a_process_is_paused_for_twice_its_lease(
    run: Run, database_url: str, stream: StreamBox, how: str, plan: Plan
) -> None:
    draw = random.Random(5)
    is_handler = how == "handler"
    relay = RelayPlan.to(stream, database_url=database_url, lease=LEASE if is_handler else None)
    # Handlers work in parallel: only forwarders keep an order.
    load = run.load(5, keyless=1.0 if is_handler else 0.1)
    async with Fleet(relay, 2, draw) as fleet:
        async with load.flowing(200):
            for _ in range(plan.pauses):
                await asyncio.sleep(draw.uniform(0.5, 1.0))
                victim = draw.choice(fleet.relays)
                victim.pause()
                await asyncio.sleep(2 * LEASE)
                victim.resume()
        recovered = await run.drained(within=60)
    findings = await run.audit(await stream.read())
    record(
        findings,
        f"A {how} paused for twice its lease",
        load="200 rows/s, 2 processes",
        faults=f"{plan.pauses} times SIGSTOP, and SIGCONT {2 * LEASE:g} s later",
        recovered=recovered,
    )
    # A forwarder's rows are locked for as long as it has its connection. What a handler had in hand is done again.
    findings.check(repeats_at_most=plan.pauses * (WORKERS + CLAIMED_AHEAD) if is_handler else 0)
