"""A store and a destination that fail, hang and break on command, and what tests see of them."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from faststream_outbox._engine.health import Health
from faststream_outbox._store.memory.handing_over import MemoryHandOver
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._store.positions import NO_MOVES
from faststream_outbox._store.protocol import Announcement, Claim, Outlook, Rescue
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Accepted, Poison, Refused, Settlement, Unsent, Unwritten, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard

TOKEN = "presence:test"


class Trouble(Exception):
    """What fails in these tests."""


async def until(condition: Callable[[], Any], *, seconds: float = 5.0) -> None:
    """Give way until something has happened; fail if it does not."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def never() -> None:
    await asyncio.Event().wait()


async def swallow_a_cancellation() -> None:
    """Do as libraries do that make a time-out by cancelling the running task, and do not take it back."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str]] = []

    def __call__(self, level: int, message: str, error: BaseException | None) -> None:
        self.all.append((level, message))

    @property
    def errors(self) -> list[str]:
        return [message for level, message in self.all if level >= logging.ERROR]

    @property
    def troubles(self) -> list[str]:
        """What was said of things that are down, whatever the level."""
        return [message for _, message in self.all if "retrying until it works" in message]

    @property
    def warnings(self) -> list[str]:
        return [message for level, message in self.all if level == logging.WARNING]

    @property
    def recoveries(self) -> list[str]:
        return [message for _, message in self.all if message.endswith("works again")]


class Script:
    """What is to happen at which call."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failing: dict[str, BaseException] = {}
        """Raised at every call, as long as it stands here."""
        self.next_failures: dict[str, deque[BaseException]] = {}
        """Raised once each."""
        self.hanging: set[str] = set()
        """Calls that do not return until they are taken out and ``let_go`` is called, or are cancelled."""
        self.refused: dict[int, BaseException] = {}
        """Rows whose outcomes cannot be written, by their ids."""
        self._released = asyncio.Condition()

    async def step(self, call: str) -> None:
        self.calls[call] += 1
        await asyncio.sleep(0)
        async with self._released:
            await self._released.wait_for(lambda: call not in self.hanging)
        if failures := self.next_failures.get(call):
            raise failures.popleft()
        if (error := self.failing.get(call) or self.failing.get("*")) is not None:
            raise error

    async def let_go(self, *calls: str) -> None:
        async with self._released:
            self.hanging.difference_update(calls)
            self._released.notify_all()


class ScriptedStore(MemoryStore):
    """The store in memory, with a script before every call."""

    controls: Any = None
    """Nothing is paused for all processes, unless a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.settled: list[Settlement] = []
        self.attempted: list[Sequence[Settlement]] = []
        """What each hand-over that had rows was to settle, also where that failed."""
        self.renewals: list[tuple[float, list[int]]] = []
        self.lost: set[int] = set()
        """Rows whose renewal finds the lease gone."""
        self.absent: list[frozenset[str]] = []
        """What the next rescues find."""
        self.suspects: list[frozenset[str]] = []
        """What the rescues were given."""
        self.freed_queues: frozenset[str] = frozenset()
        self.surveyed: list[list[Shard]] = []
        """What the surveys were given."""
        self.is_silent = False
        """The line is accepted and never answers."""
        self.lines: list[Line] = []
        self.is_reserved = False
        """Upkeep has a connection of its own."""
        self.most_connections: int | None = None

    def reserve(self) -> None:
        self.is_reserved = True

    async def let_go(self) -> None:
        self.is_reserved = False
        await self.script.step("let_go")

    def publish(self, queue: str = "orders", *, key: str | None = None, payload: bytes = b"", **options: Any) -> int:
        number = sum(1 for _ in self._records) + self.script.calls["publish"]
        self.script.calls["publish"] += 1
        draft = Draft(
            queue=queue, key=key, idempotency_key=f"id-{number}", deduplicate=False, payload=payload, **options
        )
        row_id = self.insert_sync(None, draft)
        assert row_id is not None
        for line in self.lines:
            line.ring(queue)
        return row_id

    async def make_due(self, shards: Sequence[Shard], **options: Any) -> int:
        await self.script.step("make_due")
        return await super().make_due(shards, **options)

    async def claim(self, shards: Sequence[Shard], **options: Any) -> Claim:
        await self.script.step("claim")
        return await super().claim(shards, **options)

    async def settle(self, settlements: Sequence[Settlement], *, token: str | None) -> Sequence[Unwritten]:
        if token is None:
            return await super().settle(settlements, token=None)
        await self.script.step("settle")
        written, unwritten = self.judge(settlements)
        self.settled.extend(written)
        return [*await super().settle(written, token=token), *unwritten]

    def judge(self, settlements: Sequence[Settlement]) -> tuple[list[Settlement], list[Unwritten]]:
        refused = self.script.refused
        written = [settlement for settlement in settlements if settlement.row.id not in refused]
        return written, [Unwritten(each, refused[each.row.id]) for each in settlements if each.row.id in refused]

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        await self.script.step("renew")
        self.renewals.append((lease_seconds, [row.id for row in rows]))
        return {row.id for row in rows} - self.lost

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        self.suspects.append(suspects)
        await self.script.step("rescue")
        absent = self.absent.pop(0) if self.absent else frozenset()
        return Rescue(freed_queues=self.freed_queues, absent=absent)

    async def survey(self, shards: Sequence[Shard]) -> None:
        self.surveyed.append(list(shards))
        await self.script.step("survey")

    async def outlook(self, shards: Sequence[Shard]) -> Mapping[str, Outlook]:
        await self.script.step("outlook")
        return await super().outlook(shards)

    @asynccontextmanager
    async def hand_over(self, shards: Sequence[Shard], **limits: Any) -> AsyncIterator[Any]:
        await self.script.step("hand_over")
        async with super().hand_over(shards, **limits) as hand_over:
            yield None if hand_over is None else ScriptedHandOver(hand_over, self)
            if hand_over is not None:
                await self.script.step("commit")
        if hand_over is not None:
            await self.script.step("commit_answer")

    @asynccontextmanager
    async def listen(self, token: str) -> AsyncIterator[Any]:
        await self.script.step("listen")
        if self.is_silent:
            yield None
            return
        line = Line(token)
        self.lines.append(line)
        try:
            yield line
        finally:
            line.is_open = False


class ScriptedHandOver:
    def __init__(self, hand_over: MemoryHandOver, store: ScriptedStore) -> None:
        self.shards, self.vacant, self.has_more = hand_over.shards, hand_over.vacant, hand_over.has_more
        self.is_whole, self.rows = hand_over.is_whole, hand_over.rows
        self.run, self.tokens = hand_over.run, hand_over.tokens
        self._hand_over, self._store = hand_over, store

    def row_shards(self) -> Sequence[Shard]:
        return self._hand_over.row_shards()

    async def settle(
        self, settlements: Sequence[Settlement], moves: Mapping[Shard, Move] = NO_MOVES
    ) -> Sequence[Unwritten]:
        if settlements:
            self._store.attempted.append(settlements)
        await self._store.script.step("hand_over_settle")
        written, unwritten = self._store.judge(settlements)
        return [*await self._hand_over.settle(written, moves), *unwritten]


class Line:
    """A line for wake-ups that can be rung, broken and ended."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.is_open = True
        self._signals: asyncio.Queue[str | Announcement | BaseException | None] = asyncio.Queue()

    def ring(self, queue: str) -> None:
        self._signals.put_nowait(queue)

    def say(self, announcement: Announcement) -> None:
        self._signals.put_nowait(announcement)

    def break_off(self, error: BaseException | None = None) -> None:
        self._signals.put_nowait(error or ConnectionResetError("the line broke"))

    def end(self) -> None:
        self._signals.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str | Announcement]:
        while (signal := await self._signals.get()) is not None:
            if isinstance(signal, BaseException):
                raise signal
            yield signal


class ScriptedDestination:
    """Answers as it is told: by row, else as ``answer`` says."""

    def __init__(self, log: Any, *, answer: Callable[[OutboxRow], Verdict] | None = None) -> None:
        self.health = Health("destination test", log)
        self.script = Script()
        self.answer = answer or (lambda row: Accepted())
        self.sent: list[list[int]] = []
        """The rows of each hand-over."""
        self.parcels: list[list[Parcel]] = []
        """The same as they were sent."""
        self.accepted: list[int] = []
        self.raw_verdicts: Sequence[Verdict] | None = None
        """Returned instead of an answer."""
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self.is_connected = True

    async def connect(self) -> None:
        await self.script.step("connect")
        self.is_connected = True

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        rows = [parcel.row for parcel in parcels]
        self.sent.append([row.id for row in rows])
        self.parcels.append(list(parcels))
        await self.script.step("send")
        if self.before_answer is not None:
            await self.before_answer()
        if self.raw_verdicts is not None:
            return self.raw_verdicts
        verdicts = keep_order(rows, [self.answer(row) for row in rows])
        self.accepted += [row.id for row, v in zip(rows, verdicts, strict=True) if isinstance(v, Accepted)]
        return verdicts

    async def close(self) -> None:
        await self.script.step("close")


def keep_order(rows: Sequence[OutboxRow], answers: Sequence[Verdict]) -> list[Verdict]:
    """What a destination owes: no row of a key is accepted after an earlier one that may come again."""
    held: set[str] = set()
    verdicts: list[Verdict] = []
    for row, answer in zip(rows, answers, strict=True):
        verdict = Unsent() if row.key in held else answer
        if row.key is not None and isinstance(verdict, Refused | Unsent):
            held.add(row.key)
        verdicts.append(verdict)
    return verdicts


def refuse(row: OutboxRow) -> Verdict:
    return Refused(Trouble("refused"))


def poison(row: OutboxRow) -> Verdict:
    return Poison("too_large", Trouble("too large"))


def outage(row: OutboxRow) -> Verdict:
    return Unsent(Trouble("down"))


class Clock:
    """Stands in for the module ``time``, and for the database's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)
