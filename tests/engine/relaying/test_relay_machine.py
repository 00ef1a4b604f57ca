"""Any sequence of publishing, relaying, outages, refusals, lost databases and crashes keeps G2, G3, G4 and G5.

And only a crash makes a copy: what was answered before the database failed is not sent again.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tenacity.wait import wait_none

from faststream_outbox._engine import rounds
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.relaying import account, remembered
from faststream_outbox._engine.relaying.account import Answer
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.deferrer import Deferrer
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.memory import records, store, table
from faststream_outbox._values.outcome import Accepted, Dropped, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.retry import ConstantRetry
from faststream_outbox.schema import SHARDS
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, keep_order

MAX_ATTEMPTS = 3
RETRY_SECONDS = 10.0
PART_SECONDS = 5.0
VERDICTS: dict[str, Verdict] = {
    "accept": Accepted(),
    "refuse": Refused(Trouble("refused")),
    "poison": Poison(Reason.TOO_LARGE, Trouble("too large")),
    "outage": Unsent(Trouble("down")),
}


class Destination:
    """Gives rows their verdicts in the order in which they come, and keeps what it accepted."""

    def __init__(self) -> None:
        self.health = Health("destination", Lines())
        self.received: list[OutboxRow] = []
        self.verdicts: list[str] = []
        self.is_reachable = True
        self.crash = ""
        self.last_verdicts: list[tuple[OutboxRow, Verdict]] = []
        self.poisoned: set[int] = set()
        self.parts_down: set[str] = set()
        """Keys of rows whose part takes nothing."""

    def seconds_to_next_try(self, part: str) -> float | None:
        return PART_SECONDS if part in self.parts_down else None

    @property
    def is_connected(self) -> bool:
        return self.is_reachable

    async def connect(self) -> None:
        if not self.is_reachable:
            raise Trouble("no route")

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        rows = [parcel.row for parcel in parcels]
        if self.crash == "before":
            await _die()
        verdicts = keep_order(rows, [self._verdict(row) for row in rows])
        for row, verdict in zip(rows, verdicts, strict=True):
            # Another lane may come in between.
            await asyncio.sleep(0)
            if isinstance(verdict, Accepted):
                self.received.append(row)
        if self.crash == "after":
            await _die()
        self.last_verdicts += zip(rows, verdicts, strict=True)
        return verdicts

    def _verdict(self, row: OutboxRow) -> Verdict:
        verdict = self.verdicts.pop(0) if self.verdicts else "accept"
        if verdict == "poison":
            # Poison is so for good; rows behind it need not wait, as behind a refused one, until that is written.
            self.poisoned.add(row.id)
        if row.id in self.poisoned:
            return VERDICTS["poison"]
        part = "" if row.key is None else row.key[:1]
        return Unsent(Trouble("a part is down"), part) if part in self.parts_down else VERDICTS[verdict]

    async def close(self) -> None:
        """Nothing is open."""


class NoRest:
    """The machine lets time pass itself."""

    async def rest(self, **_options: Any) -> None:
        await asyncio.sleep(0)


async def _die() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


class RelayMachine(RuleBasedStateMachine):
    keys = st.sampled_from(["a", "a", "b", "c", None])
    verdicts = st.lists(st.sampled_from(["accept", "accept", "accept", "refuse", "poison", "outage"]), max_size=8)

    is_preparing = False

    def __init__(self) -> None:
        super().__init__()
        self.cannot_prepare = False
        self.unprepared: set[int] = set()
        self.dropped: set[int] = set()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        for module in (records, store, table):
            self.patch.setattr(module, "utc_now", self.clock.utc)
        for module in (account, remembered, rounds):
            self.patch.setattr(module, "time", self.clock)
        self.crashes = 0
        self.runner.run(self._build())
        self.published: dict[int, tuple[str | None, str, bytes]] = {}
        self.refusals: defaultdict[int, int] = defaultdict(int)

    async def _build(self) -> None:
        self.store = ScriptedStore()
        self.destination = Destination()
        # Without delays: the machine lets time pass itself.
        self.breaker = Breaker(self.destination.health, 2, wait_none())
        self.begin()

    def begin(self) -> None:
        remembered = Remembered("orders", Lines(), in_flight=6)
        self.team = Team(self.breaker, remembered=remembered, deferrer=Deferrer(self.destination))
        self.lanes = [self._lane(number) for number in range(2)]

    def _lane(self, number: int) -> Lane:
        pacer: Any = NoRest()
        lane = Lane(
            str(number),
            store=self.store,
            destination=self.destination,
            team=self.team,
            rounds=Rounds(["orders"], SHARDS),
            wakeup=Wakeup(),
            pacer=pacer,
            failure=FailurePolicy(retry=ConstantRetry(delay_seconds=RETRY_SECONDS, max_attempts=MAX_ATTEMPTS)),
            batch_size=3,
            send_timeout=60.0,
            prepare=self._prepare if self.is_preparing else None,
            health=Health("database", Lines()),
            log=Lines(),
        )
        lane.sleep = lambda seconds: asyncio.sleep(0)  # type: ignore[method-assign]
        return lane

    @initialize(count=st.integers(2, 5))
    def backlog(self, count: int) -> None:
        for number in range(count):
            self.publish("a", b"backlog"[number:])

    def _prepare(self, row: OutboxRow) -> Parcel | Dropped | Refused:
        """Send every other row of a key with another key, and leave out some."""
        if self.cannot_prepare and row.payload.startswith(b"f"):
            self.unprepared.add(row.id)
            return Refused(Trouble("cannot be prepared"))
        if row.payload == b"drop":
            self.dropped.add(row.id)
            return Dropped()
        return Parcel(row._replace(key=self._sent_key(row.key, row.payload)))

    def _sent_key(self, key: str | None, payload: bytes) -> str | None:
        return f"{key}-{len(payload) % 2}" if self.is_preparing and key is not None else key

    @rule(key=keys, payload=st.sampled_from([b"", b"1", b"f", b"f1", b"drop"]))
    def publish(self, key: str | None, payload: bytes) -> None:
        row_id = self.store.publish(key=key, payload=payload)
        (row,) = [row for row in self.store.rows if row.id == row_id]
        self.published[row_id] = (key, row.idempotency_key, payload)

    @rule(verdicts=verdicts, rounds=st.integers(1, 4))
    def relay(self, verdicts: list[str], rounds: int) -> None:
        self.destination.verdicts = verdicts
        self._run_lane(0, rounds)

    @rule(verdicts=verdicts)
    def relay_in_parallel(self, verdicts: list[str]) -> None:
        self.destination.verdicts = verdicts

        async def both() -> None:
            await asyncio.gather(*(lane.run_once() for lane in self.lanes))

        self.runner.run(both())
        self._count_refusals()

    @rule(verdicts=verdicts, moment=st.sampled_from(["before", "after"]))
    def crash(self, verdicts: list[str], moment: str) -> None:
        """The process dies in the middle of a hand-over; another takes its place."""
        self.destination.verdicts, self.destination.crash = verdicts, moment
        self._run_lane(0, 2)
        self.destination.crash = ""
        self.crashes += 1
        self._begin_anew()

    def _begin_anew(self) -> None:
        for answer in self.unwritten.values():
            # Nobody is left who knows of it.
            self.refusals[answer.row.id] -= isinstance(answer.verdict, Refused | Poison)
        self.runner.run(self._begin())

    @rule()
    def stop(self) -> None:
        """An orderly one, with a database that works."""

        async def finish(lane: Lane) -> None:
            lane.begin_stop()
            while lane.has_more():
                await lane.run_once()

        sent = [*self.destination.received]
        for lane in self.lanes:
            self.runner.run(finish(lane))
        assert self.destination.received == sent
        # What stands behind rows of another process is not taken; there is none here.
        assert self.unwritten.keys() <= self.store.script.refused.keys() | self._barred
        self.crashes += bool(self.unwritten)
        self._begin_anew()

    @property
    def _barred(self) -> set[int]:
        """Rows that stand behind a waiting one of their key."""
        waiting = [
            r.row for r in self.store._records.values() if r.next_attempt_at is not None and r.row.last_attempt_at
        ]
        return {row.id for row in self.store.rows for other in waiting if row.key == other.key and other.id < row.id}

    @rule(rounds=st.integers(1, 3))
    def pause(self, rounds: int) -> None:
        """What was answered is still written, and nothing is sent."""
        sent = [*self.destination.received]
        self.team.pause.begin()
        for _ in range(rounds):
            self.runner.run(self._pass_a_round())
        self.team.pause.end()
        assert self.destination.received == sent

    async def _pass_a_round(self) -> None:
        task = asyncio.create_task(self.lanes[0].run_once())
        while not task.done():
            await asyncio.sleep(0)
            self.team.pause.wake()
        await task

    @rule(key=st.sampled_from(["a", "b"]))
    def a_part_goes_down(self, key: str) -> None:
        self.destination.parts_down.add(key)

    @rule()
    def all_parts_come_back(self) -> None:
        self.destination.parts_down.clear()

    @rule(
        verdicts=verdicts,
        call=st.sampled_from(["hand_over", "hand_over_settle", "commit", "commit_answer"]),
        rounds=st.integers(1, 4),
    )
    def lose_the_database(self, verdicts: list[str], call: str, rounds: int) -> None:
        self.destination.verdicts = verdicts
        self.store.script.failing[call] = Trouble("no database")
        for _ in range(rounds):
            with suppress(Trouble):
                self.runner.run(self._rounds(0, 2))
        self.store.script.failing.clear()
        self._count_refusals()

    @rule(data=st.data())
    def refuse_an_outcome(self, data: st.DataObject) -> None:
        if self.store.rows:
            row = data.draw(st.sampled_from(self.store.rows))
            self.store.script.refused[row.id] = Trouble("a trigger says no")

    @rule()
    def refuse_none(self) -> None:
        self.store.script.refused.clear()

    @rule()
    def go_down(self) -> None:
        self.destination.is_reachable = False

    @rule()
    def come_back(self) -> None:
        self.destination.is_reachable = True

    @rule(seconds=st.sampled_from([1.0, RETRY_SECONDS, 3 * RETRY_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(cannot=st.booleans())
    def break_the_preparing(self, cannot: bool) -> None:
        self.cannot_prepare = cannot

    async def _begin(self) -> None:
        self.begin()

    @property
    def unwritten(self) -> dict[int, Answer]:
        """Verdicts of rows that are still as they were."""
        rows = {row.id: row for row in self.store.rows}
        answers = self.team.remembered._answers
        return {key: answer for key, answer in answers.items() if key in rows and answer.is_about(rows[key])}

    def _run_lane(self, number: int, rounds: int) -> None:
        async def in_a_task() -> None:
            await asyncio.wait([asyncio.ensure_future(self._rounds(number, rounds))])

        self.runner.run(in_a_task())
        self._count_refusals()

    async def _rounds(self, number: int, rounds: int) -> None:
        for _ in range(rounds):
            await self.lanes[number].run_once()

    def _count_refusals(self) -> None:
        for row, verdict in self.destination.last_verdicts:
            # A poisoned row counts its one attempt too, when it is put among the dead.
            if isinstance(verdict, Refused | Poison):
                self.refusals[row.id] += 1
        self.destination.last_verdicts.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        """G2."""
        known = {row.id for row in self.store.rows}
        known |= {row.id for row, _ in self.store.dead_letters}
        known |= {row.id for row in self.destination.received} | self.dropped
        assert known == set(self.published)

    @invariant()
    def every_copy_is_the_same(self) -> None:
        """G3."""
        for row in self.destination.received:
            key, idempotency_key, payload = self.published[row.id]
            assert row.key == self._sent_key(key, payload)
            assert (row.idempotency_key, row.payload) == (idempotency_key, payload)

    @invariant()
    def each_key_is_in_order(self) -> None:
        """G4."""
        first_copies = list(dict.fromkeys(row.id for row in self.destination.received if row.key is not None))
        for key in {key for key, _, _ in self.published.values()}:
            mine = [row_id for row_id in first_copies if self.published[row_id][0] == key]
            assert mine == sorted(mine)

    @invariant()
    def only_refusals_count_as_attempts(self) -> None:
        """G5."""
        for row in (*self.store.rows, *(row for row, _ in self.store.dead_letters)):
            if row.id not in self.unprepared:
                answer = self.unwritten.get(row.id)
                is_open = answer is not None and isinstance(answer.verdict, Refused | Poison)
                assert row.attempts_count == self.refusals[row.id] - is_open
            assert row.deliveries_count == 0

    @invariant()
    def only_a_crash_makes_a_copy(self) -> None:
        copies = Counter(row.id for row in self.destination.received)
        assert all(count <= 1 + self.crashes for count in copies.values())

    @invariant()
    def what_is_remembered_is_bounded(self) -> None:
        assert len(self.team.remembered._answers) <= 6 + 2 * 3 + len(self.store.script.refused)

    @invariant()
    def nothing_stays_locked(self) -> None:
        assert self.store._locked == set[Shard]()

    def teardown(self) -> None:
        try:
            self.destination.verdicts = []
            self.destination.is_reachable = True
            self.destination.parts_down.clear()
            self.cannot_prepare = False
            self.refuse_none()
            for _ in range(len(self.published) + 2 * SHARDS):
                self.clock.now += RETRY_SECONDS
                self._run_lane(0, 2)
            # Nothing can be in the way any more: all is delivered or dead, and nothing is both gone and unseen.
            assert self.store.rows == []
            self.nothing_is_lost()
            self.each_key_is_in_order()
        finally:
            self.patch.undo()
            self.runner.close()


class PreparingMachine(RelayMachine):
    is_preparing = True


@pytest.mark.parametrize("machine", [RelayMachine, PreparingMachine])
def test_relaying_keeps_its_promises(machine: type[RelayMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=35, stateful_step_count=25, deadline=None),
    )
