"""What outlives a single life: the event loop, the connections, and the lanes of some relays."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tenacity.wait import wait_none

from faststream_outbox import ConstantRetry, OutboxBroker
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.lookout import Sleeper
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.shard import Shard

from .destination import Answers, Destination, Server, StoppingStore, Stops
from .model import MAX_ATTEMPTS, Lost, Model, Record

T = TypeVar("T")

DELAY = 1000.0
"""Seconds that timers and retries wait, until the test lets them pass."""
PATIENCE = 30.0
"""Seconds after which something hangs."""
LOOK = """
    SELECT queue, payload, key, attempts_count, deliveries_count, failed_at IS NOT NULL AND next_attempt_at IS NOT NULL
        AS holds_key, CASE WHEN failed_at IS NULL THEN 'LIVE' ELSE 'DEAD' END AS state FROM outbox
    UNION ALL SELECT queue, payload, key, attempts_count, deliveries_count, false, 'DEAD' FROM outbox_dlq
"""
LET_TIME_PASS = """
    UPDATE outbox SET next_attempt_at = next_attempt_at - make_interval(secs => :seconds) WHERE id IN (
        SELECT id FROM outbox WHERE next_attempt_at IS NOT NULL AND failed_at IS NULL FOR UPDATE SKIP LOCKED
    )
"""
END_CONNECTIONS = """
    SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE :name
"""


class World:
    """Args: the URL of a database of its own, and the tables there."""

    lanes_of_a_relay = ("orders", "orders", "copies")

    def __init__(self, url: str, outbox_table: SqlTable, dlq_table: SqlTable, *, relays: int = 2) -> None:
        self._runner = asyncio.Runner()
        self._url = url
        self.seen: Counter[str] = Counter()
        """What has happened in all lives together."""
        self.engine = self._create_engine("publisher and observer")
        self.relays = range(relays)
        self.lane_engines = {
            (relay, number): self._create_engine(f"relay {relay}, lane {number}")
            for relay in self.relays
            for number in range(len(self.lanes_of_a_relay))
        }
        self._stores = {
            (where, moves): PostgresStore(engine, outbox_table, dlq_table if moves else None)
            for where, engine in self.lane_engines.items()
            for moves in (False, True)
        }
        self.brokers = {
            moves: self._create_broker(outbox_table, dlq_table if moves else None) for moves in (False, True)
        }

    def _create_engine(self, name: str) -> AsyncEngine:
        settings = {"application_name": name}
        return create_async_engine(self._url, connect_args={"server_settings": settings})

    def _create_broker(self, outbox_table: SqlTable, dlq_table: SqlTable | None) -> OutboxBroker:
        """Make a broker to publish with. It is never started, nor is the destination that its forwarder names."""
        broker: OutboxBroker = OutboxBroker(self.engine, outbox_table=outbox_table, dlq_table=dlq_table, logger=None)
        broker.forwarder("copied", to=KafkaBroker().publisher("audit"), name="audit", tee=True)
        return broker

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def within_patience() -> T:
            async with asyncio.timeout(PATIENCE):
                return await work

        return self._runner.run(within_patience())

    async def execute(self, sql: str, **values: Any) -> Sequence[Any]:
        async with self.engine.begin() as connection:
            result = await connection.execute(text(sql), values)
            return result.all() if result.returns_rows else []

    async def end_connections(self, relay: int, number: int) -> None:
        await self.execute(END_CONNECTIONS, name=f"relay {relay}, lane {number}")

    def close(self) -> None:
        for engine in (self.engine, *self.lane_engines.values()):
            self.run(engine.dispose())
        self._runner.close()

    def store_of(self, relay: int, number: int, *, moves: bool) -> PostgresStore:
        return self._stores[(relay, number), moves]


class Restless:
    """Lets no lane rest: each hand-over is made when the life says so."""

    @contextmanager
    def beside(self, sleeper: Sleeper) -> Iterator[None]:
        sleeper.unheard()
        yield


class DrivenLane:
    """A real lane, whose hand-overs are made one at a time and can be stopped on their way."""

    def __init__(
        self,
        lane: Lane,
        destination: Destination,
        stops: Stops,
        team: Team,
        queues: Sequence[str],
        model: Model,
        lost: Lost,
    ) -> None:
        self.destination = destination
        self.stops = stops
        self.team = team
        self.queues = queues
        self._lane = lane
        self._model = model
        self._lost = lost
        self._task: asyncio.Task[None] | None = None

    @property
    def has_rows(self) -> bool:
        """Whether it was stopped with rows in hand."""
        return self.is_under_way and (self.stops.at == "before sending" or bool(self.record.answers))

    @property
    def is_under_way(self) -> bool:
        return self._task is not None

    @property
    def record(self) -> Record:
        return self.destination.record

    async def begin(self, *, until: str | None = None, answers: Sequence[str] = ()) -> None:
        self.destination.answers = Answers(answers)
        await self._begin(self._lane.run_once(), until)

    async def begin_to_write(self, *, until: str | None = None) -> None:
        """Make a hand-over that sends nothing, for outcomes that are remembered."""
        self.team.remembered.is_time = True  # type: ignore[attr-defined]
        await self._begin(self._lane._write_remembered(is_last=True), until)

    async def _begin(self, work: Coroutine[Any, Any, None], until: str | None) -> None:
        self.destination.record = Record()
        self.stops.go_on(until)
        self._task = asyncio.create_task(work)
        await self._wait()

    async def carries(self) -> bool:
        """Make a hand-over; tell whether there may be more to take."""
        self.stops.is_to_look_again = False
        await self.begin()
        return self.stops.is_to_look_again

    async def go_on(self, *, until: str | None = None) -> None:
        self.stops.go_on(until)
        await self._wait()

    async def _wait(self) -> None:
        assert self._task is not None
        stopped = asyncio.ensure_future(self.stops.stopped.wait())
        await asyncio.wait([self._task, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._task.done():
            self._task.result()
            self._model.settled(self.record)
            self._end()

    async def fail(self) -> None:
        """Go on to the end, which is an error, since the connection to the database is gone."""
        assert self._task is not None
        self.stops.go_on(None)
        await asyncio.wait([self._task])
        assert self._task.exception() is not None, "committed without a connection"
        self._lose("connection lost")

    async def cancel(self, how: str = "cut off") -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        self._lose(how)

    def _lose(self, how: str) -> None:
        self._model.lost(self.record, how)
        self._lost.add(self.record)
        self._end()

    def _end(self) -> None:
        self._task, self.stops.at = None, None
        self.destination.record = Record()


class RememberedByDraw(Remembered):
    """Outcomes for which a hand-over that sends nothing comes when a life says so, and not by the clock.

    By the clock, a life would be another one each time. For the same reason it is one hand-over at a time.

    Args:
        batch_size: The most rows of one.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.is_time = False
        self._batch_size = batch_size

    def rows_to_write(self, *, are_sending: bool = False, is_last: bool = False) -> Mapping[Shard, Sequence[int]]:
        is_time, self.is_time = self.is_time, False
        rows = super().rows_to_write(is_last=True) if is_time else {}
        return {shard: row_ids[: self._batch_size] for shard, row_ids in [*rows.items()][:1]}


class Relay:
    """A process with a forwarder of messages and one of copies."""

    def __init__(self, world: World, number: int, servers: dict[str, Server], model: Model, batch_size: int) -> None:
        self.number = number
        self._world = world
        self.teams = {
            name: Team(
                Breaker(Health(name, _no_log), world.lanes_of_a_relay.count(name), wait_none()),
                remembered=RememberedByDraw(batch_size),
            )
            for name in servers
        }
        self._lost = {name: Lost() for name in servers}
        self.lanes = [
            self._create_lane(position, name, servers[name], model, batch_size)
            for position, name in enumerate(world.lanes_of_a_relay)
        ]

    def _create_lane(self, position: int, name: str, server: Server, model: Model, batch_size: int) -> DrivenLane:
        stops = Stops()
        destination = Destination(server, stops)
        lost = self._lost[name]
        in_postgres = self._world.store_of(self.number, position, moves=model.moves)
        store: Any = StoppingStore(in_postgres, stops, destination, lost, model)
        runtime = Runtime(store, _no_log, listen=False)
        runtime._lookout = Restless()  # type: ignore[assignment]
        lane = runtime.lane(
            f"{name}-{position}",
            QUEUES[name],
            destination,
            self.teams[name],
            FailurePolicy(retry=ConstantRetry(delay_seconds=DELAY, max_attempts=MAX_ATTEMPTS), hold_key=model.hold_key),
            batch_size=batch_size,
            send_timeout=PATIENCE,
            min_interval=0.001,
            max_interval=0.001,
        )
        return DrivenLane(lane, destination, stops, self.teams[name], QUEUES[name], model, lost)

    @property
    def under_way(self) -> list[DrivenLane]:
        return [lane for lane in self.lanes if lane.is_under_way]

    async def lose_connection(self, lane: DrivenLane) -> None:
        """Let the server close the connection on which a hand-over is made; its lane goes on."""
        await self._world.end_connections(self.number, self.lanes.index(lane))
        await lane.fail()

    async def die(self) -> None:
        """Let the process end without a word: its connections are gone, and nothing more is done."""
        for lane in self.under_way:
            await self._world.end_connections(self.number, self.lanes.index(lane))
        await self.abandon("crash")

    async def abandon(self, how: str = "cut off") -> None:
        """Cut off what is under way, as a stop does that has no more time."""
        for lane in self.under_way:
            await lane.cancel(how)

    async def pause(self) -> None:
        """Pause all forwarders; idle lanes see it at once."""
        for team in self.teams.values():
            team.pause.begin()
        for lane in self.lanes:
            if not lane.is_under_way:
                await lane.begin()

    async def resume(self) -> None:
        sitting_out = [lane for lane in self.under_way if lane.stops.at == "sitting out"]
        for team in self.teams.values():
            team.pause.end()
        for lane in sitting_out:
            await lane.go_on()


QUEUES = {"orders": ["orders", "copied"], "copies": ["copied=>audit"]}
COPIES = {"orders": [], "copied": ["copied=>audit"]}


def _no_log(level: int, message: str, error: BaseException | None) -> None:
    """Nobody reads it."""
