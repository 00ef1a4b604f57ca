"""A destination that does what a test says, and the points at which a hand-over can be stopped."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from faststream_outbox._store.positions import NO_MOVES
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Settlement, Unsent, Unwritten, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard

from .model import Lost, Model, Record, Tracked


class Trouble(Exception):
    """What fails here."""


ANSWERS: dict[str, Verdict] = {
    "accept": Accepted(),
    "refuse": Refused(Trouble("refused")),
    "poison": Poison(Reason.TOO_LARGE, Trouble("too large")),
    "no answer": Unsent(Trouble("no answer")),
    "down": Unsent(Trouble("down")),
}


class Answers:
    """What a destination says in one hand-over, row by row; to what is left it says yes."""

    def __init__(self, script: Sequence[str] = ()) -> None:
        self._left = deque(script)
        self._last = "accept"

    def next(self) -> str:
        answer = self._left.popleft() if self._left else "accept"
        if self._last == "down" or (self._last == "no answer" and answer != "no answer"):
            # The connection is broken: some rows still get there, and then none.
            answer = "down"
        self._last = answer
        return answer


class Stops:
    """Stops a hand-over at a point, so that other things can happen meanwhile."""

    def __init__(self) -> None:
        self.at: str | None = None
        self.is_to_look_again = False
        self.stopped = asyncio.Event()
        self._wanted: str | None = None
        self._go = asyncio.Event()

    def go_on(self, until: str | None) -> None:
        self._wanted, self.at = until, None
        self.stopped.clear()
        self._go.set()
        self._go = asyncio.Event()

    def sits_out(self) -> None:
        self.at = "sitting out"
        self.stopped.set()

    async def reach(self, point: str) -> None:
        if self._wanted == point:
            self._wanted, self.at = None, point
            self.stopped.set()
            await self._go.wait()


class Server:
    """What is behind the destinations of all relays: keeps the order of each key, tells the model what arrives."""

    keeps_order = True

    def __init__(self, model: Model) -> None:
        self.is_up = True
        self._model = model

    def take(self, parcels: Sequence[Parcel], answers: Answers, record: Record) -> list[Verdict]:
        held: set[str] = set()
        verdicts: list[Verdict] = []
        for parcel in parcels:
            row, key = self._model.find(parcel.row), parcel.row.key
            arrived_before = len(record.arrived)
            verdict = Unsent() if key in held else self._one(row, answers, record)
            has_arrived = len(record.arrived) > arrived_before
            if key is not None and self.keeps_order and not has_arrived and not isinstance(verdict, Poison):
                held.add(key)
            verdicts.append(verdict)
            record.answers.append((row, verdict))
        return verdicts

    def _one(self, row: Tracked, answers: Answers, record: Record) -> Verdict:
        answer = answers.next() if self.is_up else "down"
        if answer == "poison":
            # It stays so until it is replayed.
            row.is_poison = True
        elif row.is_poison and answer in {"accept", "refuse"}:
            answer = "poison"
        elif answer in {"accept", "no answer"} and not row.is_poison:
            self._model.arrived(row)
            record.arrived.append(row)
        return ANSWERS[answer]


class Destination:
    """A lane's own connection to a server."""

    def __init__(self, server: Server, stops: Stops) -> None:
        self.server = server
        self.answers = Answers()
        self.record = Record()
        self._stops = stops

    @property
    def is_connected(self) -> bool:
        return self.server.is_up

    async def connect(self) -> None:
        if not self.server.is_up:
            raise Trouble("no route")

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        self.record.keys.update((parcel.row.queue, parcel.row.key) for parcel in parcels)
        await self._stops.reach("before sending")
        return self.server.take(parcels, self.answers, self.record)

    async def close(self) -> None:
        self._stops.sits_out()


class StoppingStore:
    """The store in PostgreSQL, whose hand-overs can be stopped before and after the outcomes are written.

    Verdicts that are to be written, and were not given in this hand-over, must be among those that were lost.
    """

    def __init__(self, store: PostgresStore, stops: Stops, destination: Destination, lost: Lost, model: Model) -> None:
        self._store = store
        self._stops = stops
        self._destination = destination
        self._lost = lost
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def hand_over(self, shards: Sequence[Shard], **limits: Any) -> AsyncIterator["StoppingHandOver | None"]:
        async with self._store.hand_over(shards, **limits) as hand_over:
            # A shard whose rows all wait for another row is found by each look.
            self._stops.is_to_look_again = hand_over is not None and bool(hand_over.rows or not hand_over.is_whole)
            yield None if hand_over is None else StoppingHandOver(hand_over, self._stops, self._recall)

    def _recall(self, rows: Sequence[OutboxRow]) -> None:
        record = self._destination.record
        answered = [row for row, _ in record.answers]
        for row in map(self._model.find, rows):
            if row not in answered:
                record.answers.append((row, self._lost.verdict_on(row)))
                record.recalled.append(row)
                record.keys.add((row.queue, row.message.key))


class StoppingHandOver:
    def __init__(self, hand_over: HandOver, stops: Stops, recall: Callable[[Sequence[OutboxRow]], None]) -> None:
        self.shards, self.vacant, self.has_more = hand_over.shards, hand_over.vacant, hand_over.has_more
        self.is_whole, self.rows = hand_over.is_whole, hand_over.rows
        self.run, self.tokens = hand_over.run, hand_over.tokens
        self._hand_over = hand_over
        self._stops = stops
        self._recall = recall

    def row_shards(self) -> Sequence[Shard]:
        return self._hand_over.row_shards()

    async def settle(
        self, settlements: Sequence[Settlement], moves: Mapping[Shard, Move] = NO_MOVES
    ) -> Sequence[Unwritten]:
        written = {settlement.row.id for settlement in settlements}
        self._recall([row for row in self.rows if row.id in written])
        await self._stops.reach("before settling")
        unwritten = await self._hand_over.settle(settlements, moves)
        await self._stops.reach("before the commit")
        return unwritten
