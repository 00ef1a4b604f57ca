"""G2, G3, G4, G5: destinations that are away, restarted, cut off, slow, full or closed, under load."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from integration.destinations.base import Box
from integration.destinations.troubles import NETWORK, REFUSALS, Trouble, open_box, unreachable
from integration.relay import RelayPlan, running_relay
from integration.servers.kafka import OwnKafka
from integration.servers.nats import NatsServer
from integration.servers.rabbitmq import OwnRabbit
from integration.servers.redis import EmbeddedRedis

from .results import record
from .run import Run, forms

BATCH_SIZE = 50
LANES = 2
KEYS = 1000
"""Many, since RabbitMQ has one message of a key in flight: few would make a busy machine's latency the limit."""
SEND_TIMEOUT = 2.0
"""Seconds. A connection must be possible in that time, on a busy machine too."""
GIVEN_UP_AT_MOST = 4
"""Hand-overs of each lane that one trouble can leave without an answer: they are sent again."""


@pytest.fixture(params=["kafka_server", "rabbit_server", "own_redis"], ids=["kafka", "rabbit", "redis"])
def server(request: pytest.FixtureRequest) -> OwnKafka | OwnRabbit | EmbeddedRedis:
    """A server of ours, to be broken."""
    server = request.getfixturevalue(request.param)
    if not isinstance(server, OwnKafka | OwnRabbit | EmbeddedRedis):
        pytest.skip("a server named by the environment is not ours to break")
    return server


@dataclass(frozen=True)
class Plan:
    rate: float
    rounds: int
    seconds: float
    """Of each trouble, and of rest before and after it."""


PLANS = forms(Plan(200, 1, 1.0), Plan(500, 2, 6.0), timeout=600)


@PLANS
async def test_a_destination_that_is_away_at_first_and_then_restarted_and_cut_off(
    run: Run, server: OwnKafka | OwnRabbit | EmbeddedRedis, database_url: str, plan: Plan
) -> None:
    async with open_box(server) as box, AsyncExitStack() as stack:
        async with unreachable(box):
            await stack.enter_async_context(running_relay(_relay(box, database_url)))
        await _endure(run, box, "restarts and a bad network", NETWORK, plan)


@PLANS
async def test_a_destination_that_refuses(
    run: Run, server: OwnKafka | OwnRabbit | EmbeddedRedis, database_url: str, plan: Plan
) -> None:
    async with open_box(server) as box, running_relay(_relay(box, database_url)):
        await _endure(run, box, "refusals", REFUSALS[box.kind], plan)


def _relay(box: Box, database_url: str) -> RelayPlan:
    options = {"batch_size": BATCH_SIZE, "lanes": LANES, "send_timeout": SEND_TIMEOUT}
    return RelayPlan.to(box, database_url=database_url, url=box.proxied_url, options=options)


async def _endure(run: Run, box: Box, name: str, troubles: list[Trouble], plan: Plan) -> None:
    recovered = 0.0
    async with run.load(2, keys=KEYS).flowing(plan.rate):
        for trouble in troubles * plan.rounds:
            await asyncio.sleep(plan.seconds / 2)
            async with trouble(box):
                await asyncio.sleep(plan.seconds)
            recovered = max(recovered, await run.caught_up(within=60))
    await run.drained(within=60)
    findings = await run.audit(await box.read())
    names = ", ".join(trouble.__name__.replace("_", " ") for trouble in troubles)
    record(
        findings,
        f"{box.kind}: {name}",
        load=f"{plan.rate:g} rows/s",
        faults=f"{names}; {plan.seconds:g} s each, {plan.rounds} times",
        recovered=recovered,
    )
    assert await run.table.count(name="outbox_dlq") == 0
    findings.check(repeats_at_most=plan.rounds * len(troubles) * GIVEN_UP_AT_MOST * LANES * BATCH_SIZE)


def test_a_server_of_another_kind_has_no_box_of_troubles() -> None:
    with pytest.raises(TypeError, match="there are no troubles for a NatsServer"):
        open_box(NatsServer("nats://nowhere"))  # type: ignore[arg-type]
