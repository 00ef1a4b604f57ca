"""The clock of a relay is wrong: only the database's decides, so nothing is early, late or lost."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from faststream.redis.parser import BinaryMessageFormatV1
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from integration.destinations.received import IDENTITY
from integration.destinations.redis import StreamBox
from integration.ledger.book import Letter, publish
from integration.relay import RelayPlan, running_relay
from integration.servers.missing import missing

from .results import record
from .run import Run, forms

DELAY = 2.0
LATE = 3.0
"""Seconds after its time that a busy machine may need for a message."""


@pytest.fixture
def faketime() -> Path:
    """The library that gives one process a clock of its own: Debian's package `faketime`."""
    places = [
        *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
        *Path("/usr/lib/faketime").glob("libfaketime.so.1"),
    ]
    if not places:
        missing("libfaketime: install Debian's package faketime")
    return places[0]


def _clock(library: Path, offset: str) -> Mapping[str, str]:
    # The monotonic clock, by which the event loop sleeps, is right on every machine.
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@dataclass(frozen=True)
class Plan:
    seconds: float


@forms(Plan(4.0), Plan(60.0), timeout=300)
async def test_the_clocks_of_relays_are_an_hour_ahead_and_an_hour_behind(
    run: Run,
    engine: AsyncEngine,
    outbox_table: Table,
    database_url: str,
    stream: StreamBox,
    faketime: Path,
    plan: Plan,
) -> None:
    relay = RelayPlan.to(stream, database_url=database_url)
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    due: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        for offset in ("+3600", "-3600"):
            child = await stack.enter_async_context(running_relay(relay, env=_clock(faketime, offset)))
            clock = float((await child.wait_for_line("clock")).split()[1])
            assert abs(clock - time.time() - float(offset)) < 60, "its clock is as wrong as it shall be"
        async with run.load(9).flowing(200):
            until = time.monotonic() + plan.seconds
            while time.monotonic() < until:
                identity = f"timer-{len(due)}"
                async with engine.begin() as connection:
                    due[identity] = time.time() + DELAY
                    letter = Letter(identity, None, b"")
                    await publish(broker, connection, "orders", [letter], activate_in=timedelta(seconds=DELAY))
                await asyncio.sleep(0.1)
        await run.drained(within=60)
    arrived = await _arrival_times(stream)
    delays = [arrived[identity] - due[identity] for identity in due]
    findings = await run.audit(await stream.read())
    record(
        findings,
        "Clocks of relays wrong",
        load=f"200 rows/s for {plan.seconds:g} s, and {len(due)} timers",
        faults="one relay's clock an hour ahead, another's an hour behind",
        besides=f"timers {min(delays):.2f} to {max(delays):.2f} s after their time",
    )
    findings.check()
    assert min(delays) >= 0.0, "early"
    assert max(delays) < LATE, "late"


async def _arrival_times(stream: StreamBox) -> dict[str, float]:
    """When each message came, by the clock of Redis, which is in the entries' ids."""
    async with stream.server.client() as client:
        entries = await client.xrange(stream.name)
    times: dict[str, float] = {}
    for entry, fields in entries:
        _, headers = BinaryMessageFormatV1.parse(fields[b"__data__"])
        times[headers[IDENTITY]] = int(entry.split(b"-")[0]) / 1000
    return times
