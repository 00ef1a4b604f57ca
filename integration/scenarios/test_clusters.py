"""G2, G3, G4, G5: destinations of three servers, some of which are killed, cut off or restarted, under load."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from redis.exceptions import RedisError

from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.destinations.kafka import KafkaBox
from integration.destinations.rabbit import QueueBox
from integration.destinations.redis import PRIMARY, SentinelBox, StreamBox
from integration.faults.proxy import TcpProxy
from integration.relay import RelayPlan, running_relay
from integration.servers.clusters import KafkaCluster, RabbitCluster, RedisWatched, at_once
from integration.servers.missing import missing
from integration.servers.process import LOOPBACK, ServerUnavailable
from integration.servers.redis import EmbeddedRedis

from .results import record
from .run import Run, forms

BATCH_SIZE = 50
LANES = 2
KEYS = 500
SEND_TIMEOUT = 5.0
GIVEN_UP_AT_MOST = 4
"""Hand-overs of each lane that one fault can leave without an answer: they are sent again."""
REPLICATION_SECONDS = 1.0
"""What Redis has acknowledged within that time before its end may be on no replica."""


class Servers(Protocol):
    def start(self) -> None: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Servers)


def _running(make: Callable[[], S]) -> Iterator[S]:
    try:
        servers = make()
    except ServerUnavailable as unavailable:
        missing(str(unavailable))
    with ExitStack() as stack:
        stack.callback(servers.close)
        try:
            servers.start()
        except ServerUnavailable as unavailable:
            missing(str(unavailable))
        yield servers


@pytest.fixture(scope="module")
def rabbits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitCluster]:
    yield from _running(lambda: RabbitCluster(tmp_path_factory.mktemp("rabbits")))


@pytest.fixture(scope="module")
def kafkas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    yield from _running(lambda: KafkaCluster(tmp_path_factory.mktemp("kafkas")))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[RedisWatched]:
    yield from _running(lambda: RedisWatched(tmp_path, PRIMARY))


@dataclass(frozen=True)
class Plan:
    rate: float
    rounds: int
    seconds: float
    """Of each fault, and of rest before it."""


PLANS = forms(Plan(100, 1, 1.5), Plan(300, 3, 10.0), timeout=900)
Fault = Callable[[], AbstractAsyncContextManager[None]]


async def _endure(run: Run, box: Box, url: str, name: str, faults: list[Fault], plan: Plan, database_url: str) -> None:
    """Carry rows to a box while one fault after the other comes and goes, and judge what arrived."""
    options = {"batch_size": BATCH_SIZE, "lanes": LANES, "send_timeout": SEND_TIMEOUT}
    recovered = 0.0
    async with running_relay(RelayPlan.to(box, database_url=database_url, url=url, options=options)):
        async with run.load(2, keys=KEYS).flowing(plan.rate):
            for fault in faults * plan.rounds:
                await asyncio.sleep(plan.seconds)
                async with fault():
                    await asyncio.sleep(plan.seconds)
                recovered = max(recovered, await run.caught_up(within=90))
        await run.drained(within=90)
    findings = await run.audit(await box.read())
    names = ", ".join(fault.__name__.replace("_", " ") for fault in faults)
    record(
        findings,
        name,
        load=f"{plan.rate:g} rows/s",
        faults=f"{names}; {plan.seconds:g} s each, {plan.rounds} times",
        recovered=recovered,
    )
    assert await run.table.count(name="outbox_dlq") == 0
    findings.check(repeats_at_most=plan.rounds * len(faults) * GIVEN_UP_AT_MOST * LANES * BATCH_SIZE)


@PLANS
@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_rabbitmq_of_three_nodes(
    run: Run, rabbits: RabbitCluster, database_url: str, plan: Plan, kind: str
) -> None:
    """The queue is on the second node, or led from there; a balancer leads the relay to the first one that runs."""
    nodes = [near, far, _] = rabbits.nodes

    async with (
        QueueBox.declared(far, far.new_name(), x_queue_type=kind) as declared,
        TcpProxy(LOOPBACK, near.port) as balancer,
    ):
        box = QueueBox(far, declared.name, balancer)

        @asynccontextmanager
        async def the_node_of_the_queue_killed() -> AsyncIterator[None]:
            await asyncio.to_thread(far.process.kill)
            yield
            await asyncio.to_thread(far.start)

        @asynccontextmanager
        async def the_node_of_the_relay_killed() -> AsyncIterator[None]:
            await asyncio.to_thread(near.process.kill)
            balancer.upstream_port = far.port
            yield
            await asyncio.to_thread(near.start)
            balancer.upstream_port = near.port

        @asynccontextmanager
        async def a_minority_left() -> AsyncIterator[None]:
            for node in nodes[1:]:
                await asyncio.to_thread(node.process.kill)
            yield
            await asyncio.to_thread(at_once, [node.start for node in nodes[1:]])

        @asynccontextmanager
        async def the_node_of_the_relay_cut_off() -> AsyncIterator[None]:
            await asyncio.to_thread(rabbits.part, near)
            yield
            await asyncio.to_thread(rabbits.join, near)

        faults: dict[str, list[Fault]] = {
            "classic": [the_node_of_the_queue_killed],
            "quorum": [
                the_node_of_the_queue_killed,
                the_node_of_the_relay_killed,
                the_node_of_the_relay_cut_off,
                a_minority_left,
            ],
        }
        name = f"RabbitMQ of three nodes: a {kind} queue"
        await _endure(run, box, box.proxied_url, name, faults[kind], plan, database_url)


@PLANS
async def test_kafka_of_three_servers(run: Run, kafkas: KafkaCluster, database_url: str, plan: Plan) -> None:
    """Every partition is on all of them, and what is acknowledged on two at least."""
    nodes = kafkas.nodes

    @asynccontextmanager
    async def a_leader_killed() -> AsyncIterator[None]:
        # Each of them leads two of the six partitions.
        await asyncio.to_thread(nodes[0].process.kill)
        yield
        await asyncio.to_thread(nodes[0].start)

    @asynccontextmanager
    async def two_killed() -> AsyncIterator[None]:
        for node in nodes[1:]:
            await asyncio.to_thread(node.process.kill)
        yield
        await asyncio.to_thread(at_once, [node.start for node in nodes[1:]])

    @asynccontextmanager
    async def a_rolling_restart() -> AsyncIterator[None]:
        for node in nodes:
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.start)
        yield

    with kafkas.topic(6) as name:
        box = KafkaBox(kafkas, name)
        faults: list[Fault] = [a_leader_killed, two_killed, a_rolling_restart]
        await _endure(run, box, box.url, "Kafka of three servers", faults, plan, database_url)


@PLANS
async def test_redis_with_three_sentinels(run: Run, watched: RedisWatched, database_url: str, plan: Plan) -> None:
    """Redis answers before its replicas have a message: what it took just before its end may be lost, and no more."""
    relay = RelayPlan.to(SentinelBox(watched, "orders"), database_url=database_url, url=watched.url)
    deaths: list[float] = []
    recovered = 0.0
    load = run.load(2, keys=KEYS)
    async with running_relay(relay):
        async with load.flowing(plan.rate):
            for _ in range(plan.rounds):
                await asyncio.sleep(plan.seconds)
                dead = await watched.primary()
                deaths.append(time.monotonic())
                await asyncio.to_thread(dead.process.kill)
                await eventually(lambda dead=dead: _another_than(watched, dead), within=30)
                recovered = max(recovered, await run.caught_up(within=60))
                await asyncio.to_thread(dead.start, wait_for_data=False)
                await eventually(lambda dead=dead: _follows(dead), within=60)
        await run.drained(within=60)
    findings = await run.audit(await StreamBox(await watched.primary(), "orders").read())
    record(
        findings,
        "Redis with three Sentinels",
        load=f"{plan.rate:g} rows/s",
        faults=f"{plan.rounds} kill -9 of the primary, a replica in its place",
        recovered=recovered,
        besides="Redis answers before its replicas have a message",
    )
    committed = load.committed_at
    last = [each for each in findings.lost if any(0 < at - committed[each] < REPLICATION_SECONDS for at in deaths)]
    left = [each for each in findings.lost if each not in last]
    replace(findings, lost=left).check(repeats_at_most=plan.rounds * GIVEN_UP_AT_MOST * LANES * BATCH_SIZE)


async def _another_than(watched: RedisWatched, dead: object) -> bool:
    with suppress(RedisError):
        return await watched.primary() is not dead
    return False


async def _follows(server: EmbeddedRedis) -> bool:
    with suppress(RedisError):
        async with server.client() as client:
            return bool((await client.info("replication"))["role"] == "slave")
    return False
