"""From the table to a destination: every verdict, every failure around it, and the order of a key through all of it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock
from zlib import crc32

import pytest
from tenacity.wait import wait_fixed

from faststream_outbox._engine import pacer, rounds
from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.relaying import lane as lane_module
from faststream_outbox._engine.relaying import sender
from faststream_outbox._engine.relaying.breaker import Breaker, BreakerState
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.team import Tally, Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._values.outcome import Accepted, Dropped, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.retry import ConstantRetry, NoRetry
from faststream_outbox.schema import SHARDS
from tests.engine.fakes import (
    Lines,
    ScriptedDestination,
    ScriptedStore,
    Trouble,
    outage,
    poison,
    refuse,
    until,
)


@pytest.fixture
async def lane(make: Callable[..., Lane], runtime: Runtime) -> Lane:
    lane = make()
    runtime.start()
    return lane


def attempts(store: ScriptedStore) -> list[int]:
    return [row.attempts_count for row in store.rows]


def first_sent(destination: ScriptedDestination) -> list[int]:
    return list(dict.fromkeys(row_id for hand_over in destination.sent for row_id in hand_over))


# Verdicts


async def test_accepted_rows_leave_the_table(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    ids = [store.publish(key=f"key-{number % 7}") for number in range(100)]
    lane.start()
    await until(lambda: not store.rows)
    assert sorted(destination.accepted) == ids
    assert store.dead_letters == []


async def test_a_hand_over_is_bounded(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for _ in range(25):
        store.publish(key="a")
    make(batch_size=10).start()
    await until(lambda: not store.rows)
    assert [len(hand_over) for hand_over in destination.sent] == [10, 10, 5]


async def test_a_hand_over_is_bounded_in_bytes(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for size in (40, 40, 40, 500, 10):
        store.publish(key="a", payload=b"x" * size)
    make(batch_bytes=100).start()
    await until(lambda: not store.rows)
    assert [len(hand_over) for hand_over in destination.sent] == [2, 1, 1, 1]


async def test_few_rows_in_many_shards_leave_together(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # Rows without a key go round the shards.
    for _ in range(SHARDS):
        store.publish()
    lane.start()
    await until(lambda: not store.rows)
    assert [len(hand_over) for hand_over in destination.sent] == [1, 2, 4, 8, 1]
    ids = [store.publish() for _ in range(SHARDS)]
    await until(lambda: not store.rows)
    assert destination.sent[-1] == ids


async def test_a_hand_over_that_leaves_nothing_is_followed_by_a_rest(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    lane = make()
    lane._rounds.widen()
    ids = []
    with mock.patch.object(pacer, "AFTERLOOK_SECONDS", 60.0):
        for _ in range(3):
            ids.append(store.publish(key="a"))
            lane._wakeup.ring()
            lane.start()
            await until(lambda: destination.accepted == ids and lane._wakeup.is_asleep)
    assert store.script.calls["hand_over"] == len(ids)


async def test_what_comes_in_while_the_last_row_is_sent_is_not_slept_over(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    lane = make(min_interval=60.0)
    lane._rounds.widen()
    first = store.publish(key="a")
    late: list[int] = []

    def answer(row: OutboxRow) -> Verdict:
        if row.id == first:
            late.append(store.publish(key="a"))
            lane._wakeup.ring()
        return Accepted()

    destination.answer = answer
    with mock.patch.object(pacer, "AFTERLOOK_SECONDS", 60.0):
        lane.start()
        await until(lambda: destination.accepted == [first, *late])


async def test_rows_that_there_was_no_time_for_are_not_rested_from(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    lane = make(min_interval=60.0, hold_key=True)
    lane._rounds.widen()
    ids = [store.publish(key="a") for _ in range(3)]

    def answer(_row: OutboxRow) -> Verdict:
        # Longer than all waves may take.
        time.sleep(0.02)
        return Accepted()

    destination.answer = answer
    with mock.patch.object(sender, "WAVES_SECONDS", 0.01), mock.patch.object(pacer, "AFTERLOOK_SECONDS", 60.0):
        lane.start()
        await until(lambda: destination.accepted == ids)


async def test_a_shard_with_many_rows_is_left_to_one_hand_over(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for _ in range(40 * SHARDS):
        store.publish()
    make(batch_size=32).start()
    await until(lambda: not store.rows)
    first = [{row_id % SHARDS for row_id in hand_over} for hand_over in destination.sent[:SHARDS]]
    assert [len(shards) for shards in first] == [1] * SHARDS


async def test_after_trouble_shards_are_tried_one_at_a_time(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for _ in range(7):
        store.publish()
    lane.start()
    await until(lambda: not store.rows)
    destination.answer = outage
    ids = [store.publish() for _ in range(4)]
    before = len(destination.sent)
    await until(lambda: len(destination.sent) == before + 3)
    assert [len(hand_over) for hand_over in destination.sent[before:]] == [len(ids), 1, 1]


async def test_a_refused_row_is_retried_and_counted(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    answers = deque([refuse, refuse])
    destination.answer = lambda row: answers.popleft()(row) if answers else Accepted()
    counts: list[list[int]] = []
    destination.before_answer = lambda: _note(counts, attempts(store))
    store.publish()
    make(retry=ConstantRetry(delay_seconds=0.001), min_interval=0.01).start()
    await until(lambda: not store.rows)
    assert counts == [[0], [1], [2]]


async def _note(notes: list[Any], note: Any) -> None:
    notes.append(note)


async def test_a_row_refused_for_the_last_time_is_dead(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    destination.answer = refuse
    store.publish()
    make(retry=NoRetry()).start()
    await until(lambda: store.dead_letters)
    ((row, dead),) = store.dead_letters
    assert (dead.reason, dead.exception) == (Reason.RETRIES_EXHAUSTED, "Trouble: refused")
    assert row.attempts_count == 1


@pytest.mark.parametrize("answer", [refuse, poison])
async def test_a_dead_letter_holds_its_key_where_that_is_wanted(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, answer: Any
) -> None:
    destination.answer = answer
    bad = store.publish(key="a")
    lane = make(retry=NoRetry(), hold_key=True)
    lane.start()
    await until(lambda: store.dead_letters)
    destination.answer = lambda row: Accepted()
    behind, other = store.publish(key="a"), store.publish(key="b")
    await until(lambda: other in destination.accepted)
    await until(lambda: [row.id for row in store.rows] == [behind])
    store.revive([bad])
    await until(lambda: not store.rows)
    assert destination.accepted[-2:] == [bad, behind]


async def test_poison_is_dead_at_once_and_stalls_no_one(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    bad = store.publish(key="a")
    good = store.publish(key="a")
    destination.answer = lambda row: poison(row) if row.id == bad else Accepted()
    lane.start()
    await until(lambda: not store.rows)
    assert destination.accepted == [good]
    ((row, dead),) = store.dead_letters
    assert (row.id, dead.reason, dead.exception) == (bad, "too_large", "Trouble: too large")


def open_up(breaker: Breaker) -> None:
    """Have something fail that no lane of these tests works on."""
    for _ in range(2):
        breaker.note(["elsewhere"], answered=False, trouble=Trouble("down"))
    assert breaker.state is BreakerState.OPEN


async def test_poison_alone_says_nothing_about_the_destination(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    open_up(breaker)
    destination.answer = poison
    store.publish()
    lane.start()
    await until(lambda: store.dead_letters and store.script.calls["hand_over"] > 1)
    assert breaker.state is BreakerState.HALF_OPEN


async def test_a_refusal_shows_that_the_destination_is_up(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    open_up(breaker)
    destination.answer = refuse
    store.publish()
    lane.start()
    await until(lambda: breaker.state is BreakerState.CLOSED)
    assert attempts(store) == [1]


async def test_a_strategy_with_a_bug_does_not_make_the_rows_come_again_and_again(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    class Broken:
        def get_next_attempt_delay(self, **_: Any) -> float:
            raise Trouble("bug")

    destination.answer = refuse
    store.publish()
    make(retry=Broken()).start()
    await until(lambda: attempts(store) == [1])
    await asyncio.sleep(0.01)
    assert destination.sent == [[1]]


# Outages


async def test_an_outage_counts_no_attempt_and_ends_by_itself(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    ids = [store.publish(key="a") for _ in range(10)]
    destination.answer = outage
    lane.start()
    await until(lambda: len(destination.sent) == 5)
    assert attempts(store) == [0] * 10
    assert all(row.deliveries_count == 0 for row in store.rows)
    assert log.errors == ["destination test: Trouble: down (retrying until it works)"]
    destination.answer = lambda row: Accepted()
    await until(lambda: not store.rows)
    assert destination.accepted == ids
    await until(lambda: log.recoveries == ["destination test: works again"])


async def test_while_it_cannot_connect_no_row_is_touched(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker, log: Lines
) -> None:
    store.publish()
    destination.script.failing["connect"] = Trouble("no route")
    lane.start()
    await until(lambda: destination.script.calls["connect"] == 6)
    assert store.script.calls["hand_over"] == 0
    assert breaker.state is not BreakerState.CLOSED
    assert log.errors == ["destination test: Trouble: no route (retrying until it works)"]
    destination.script.failing.clear()
    await until(lambda: not store.rows)
    # It is said behind the commit.
    await until(lambda: log.recoveries == ["destination test: works again"])


async def test_a_connection_that_came_back_is_told_without_waiting_for_rows(
    lane: Lane, destination: ScriptedDestination, log: Lines
) -> None:
    destination.script.failing["connect"] = Trouble("no route")
    lane.start()
    await until(lambda: log.errors)
    destination.script.failing.clear()
    await until(lambda: log.recoveries)


async def test_connecting_without_being_able_to_send_is_one_outage(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    store.publish()
    destination.answer = outage
    lane.start()
    await until(lambda: destination.script.calls["connect"] == 8)
    assert len(log.errors) == 1
    assert log.recoveries == []


async def test_a_connection_that_hangs_is_given_up(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    destination.script.hanging.add("connect")
    make(send_timeout=0.01).start()
    await until(lambda: destination.script.calls["connect"] == 2)
    assert len(log.errors) == 1


async def test_a_part_that_is_down_keeps_nothing_from_the_rest(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker, log: Lines
) -> None:
    store.publish(key="down")
    destination.answer = lambda row: Accepted() if row.key == "up" else outage(row)
    lane.start()
    for _ in range(5):
        store.publish(key="up")
        await until(lambda: len(store.rows) == 1)
    assert str(breaker.last_error) == "down"
    assert len(log.errors) == 1, "successes in between do not end the outage of that part"
    assert log.recoveries == []
    destination.answer = lambda row: Accepted()
    await until(lambda: log.recoveries)
    assert log.recoveries == ["destination test: works again"]
    assert breaker.last_error is None


async def test_one_lane_tries_while_the_others_wait(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    for number in range(30):
        store.publish(key=f"key-{number}")
    destination.answer = outage
    lanes = [make() for _ in range(3)]
    for lane in lanes:
        lane.start()
    await until(lambda: breaker.state is BreakerState.OPEN)
    destination.script.hanging.add("send")
    await until(lambda: breaker.state is BreakerState.HALF_OPEN and len(store._locked) == 1)
    sent = len(destination.sent)
    for _ in range(20):
        await asyncio.sleep(0.001)
        assert len(store._locked) == 1, "the rows of one shard"
    assert len(destination.sent) == sent
    destination.answer = lambda row: Accepted()
    await destination.script.let_go("send")
    await until(lambda: not store.rows)
    assert breaker.state is BreakerState.CLOSED


async def test_while_it_is_open_nothing_is_locked_and_the_database_is_not_asked(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    breaker._delay = wait_fixed(60)
    for number in range(30):
        store.publish(key=f"key-{number}")
    destination.answer = outage
    lanes = [make() for _ in range(3)]
    for lane in lanes:
        lane.start()
    # It opens while other lanes may still have rows in hand.
    breaker._delay = wait_fixed(0.001)
    await until(lambda: breaker.state is BreakerState.OPEN)
    breaker._next_probe = math.inf
    breaker.wake()
    await until(lambda: not breaker._turns)
    calls = store.script.calls.copy()
    assert store._locked == set()
    await asyncio.sleep(0.02)
    assert store.script.calls == calls


async def test_a_send_that_takes_too_long_leaves_its_rows_uncounted(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    row_id = store.publish()
    destination.script.hanging.add("send")
    make(send_timeout=0.01).start()
    await until(lambda: len(destination.sent) == 3)
    assert attempts(store) == [0]
    assert len(log.errors) == 1
    await destination.script.let_go("send")
    await until(lambda: not store.rows)
    assert destination.accepted == [row_id]


@pytest.mark.parametrize("error", [Trouble("bug"), asyncio.CancelledError(), ExceptionGroup("several", [Trouble()])])
async def test_a_destination_that_raises_although_it_must_not_costs_no_row(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, log: Lines, error: BaseException
) -> None:
    store.publish()
    destination.script.failing["send"] = error
    lane.start()
    await until(lambda: len(destination.sent) == 3)
    assert attempts(store) == [0]
    assert destination.health.last_error is error
    assert not lane.health.is_down
    assert len(log.errors) == 1
    destination.script.failing.clear()
    await until(lambda: not store.rows)


@pytest.mark.parametrize("verdicts", [[], [Accepted()], [Accepted()] * 3])
async def test_verdicts_that_fit_no_rows_are_not_believed(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, verdicts: list[Verdict]
) -> None:
    store.publish(key="a")
    store.publish(key="a")
    destination.raw_verdicts = verdicts
    lane.start()
    await until(lambda: len(destination.sent) == 2)
    assert len(store.rows) == 2
    assert destination.health.is_down
    destination.raw_verdicts = None
    await until(lambda: not store.rows)


async def test_a_connection_cancelled_by_someone_else_is_an_outage(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    store.publish()
    destination.script.next_failures["connect"] = deque([asyncio.CancelledError()])
    lane.start()
    await until(lambda: not store.rows)


# The database


@pytest.mark.parametrize("call", ["hand_over", "hand_over_settle", "commit"])
async def test_a_failing_database_costs_no_row_and_is_told_as_such(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, log: Lines, call: str
) -> None:
    ids = [store.publish(key="a") for _ in range(3)]
    store.script.failing[call] = Trouble("no database")
    lane.start()
    await until(lambda: store.script.calls[call] == 4)
    assert len(store.rows) == 3
    # The next attempt may be under way.
    await until(lambda: not store._locked)
    assert attempts(store) == [0, 0, 0]
    assert not destination.health.is_down
    assert log.errors[0].startswith("outbox database: Trouble")
    store.script.failing.clear()
    await until(lambda: not store.rows)
    assert list(dict.fromkeys(destination.accepted)) == ids


async def test_after_a_failed_hand_over_shards_are_tried_one_at_a_time(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for _ in range(7):
        store.publish()
    lane.start()
    await until(lambda: not store.rows)
    store.script.failing["commit"] = Trouble("no database")
    before = len(store.attempted)
    for _ in range(4):
        store.publish()
    await until(lambda: len(store.attempted) == before + 3)
    assert [len(settlements) for settlements in store.attempted[before:]] == [4, 1, 1]


async def test_a_look_in_vain_lets_a_lane_at_work_look_once_more(make: Callable[..., Lane]) -> None:
    looking, at_work = make(), make()
    looking._wakeup.ring()
    looking.start()
    await until(lambda: at_work._wakeup.is_rung)


async def test_a_look_that_took_all_lets_a_lane_at_work_look_once_more(
    make: Callable[..., Lane], store: ScriptedStore
) -> None:
    looking, at_work = make(), make()
    looking._rounds.widen()
    store.publish(key="a")
    looking._wakeup.ring()
    looking.start()
    await until(lambda: at_work._wakeup.is_rung)
    assert store.script.calls["hand_over"] == 1


async def test_a_failing_look_for_due_rows_does_not_make_the_lane_spin(
    lane: Lane, store: ScriptedStore, log: Lines
) -> None:
    lane._backoff = Backoff()
    store.script.failing["outlook"] = Trouble("no")
    lane.start()
    await until(lambda: store.script.calls["outlook"] == 2)
    assert store.script.calls["hand_over"] <= 3


async def test_a_transaction_that_hangs_is_given_up(
    make: Callable[..., Lane], store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "DATABASE_SECONDS", 0.01)
    store.publish()
    store.script.hanging.add("hand_over_settle")
    make(send_timeout=0.01).start()
    await until(lambda: store.script.calls["hand_over_settle"] == 2)
    await store.script.let_go("hand_over_settle")
    await until(lambda: not store.rows)


# The end


async def test_a_stop_waits_for_the_hand_over_and_writes_its_outcome(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    store.publish()
    destination.script.hanging.add("send")
    lane.start()
    await until(lambda: destination.sent)
    stopping = asyncio.create_task(lane.stop(60.0))
    await asyncio.sleep(0.005)
    assert not stopping.done()
    await destination.script.let_go("send")
    async with asyncio.timeout(2.5):
        await stopping
    assert store.rows == []
    assert destination.sent == [[1]]


async def test_a_stop_cuts_a_hand_over_off_after_its_grace_and_the_rows_go_back(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    store.publish()
    destination.script.hanging.add("send")
    lane.start()
    await until(lambda: destination.sent)
    async with asyncio.timeout(2.5):
        await lane.stop(0.01)
    assert attempts(store) == [0]
    assert store._locked == set()
    await destination.script.let_go("send")
    lane.start()
    await until(lambda: not store.rows)


async def test_after_a_stop_no_more_rows_are_taken(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    for _ in range(10):
        store.publish(key="a")
    lane = make(batch_size=1)
    destination.script.hanging.add("send")
    lane.start()
    await until(lambda: destination.sent)
    stopping = asyncio.create_task(lane.stop(60.0))
    await asyncio.sleep(0)
    await destination.script.let_go("send")
    await stopping
    assert len(store.rows) == 9


async def test_a_stop_does_not_wait_for_a_connection(lane: Lane, destination: ScriptedDestination, log: Lines) -> None:
    destination.script.hanging.add("connect")
    lane.start()
    await until(lambda: destination.script.calls["connect"])
    async with asyncio.timeout(2.5):
        await lane.stop(60.0)
    assert log.errors == []


async def test_a_stop_while_it_connects_keeps_it_from_taking_rows(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect() -> None:
        lane.begin_stop()

    monkeypatch.setattr(destination, "connect", connect)
    store.publish()
    lane.start()
    await lane.stop(60.0)
    await lane.run_once()
    assert store.script.calls["hand_over"] == 0


@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_stop_does_not_wait_for_the_next_probe(
    make: Callable[..., Lane], destination: ScriptedDestination, breaker: Breaker, lanes: int
) -> None:
    destination.script.failing["connect"] = Trouble("no route")
    made = [make() for _ in range(lanes)]
    for lane in made:
        lane.start()
    await until(lambda: breaker.state is BreakerState.OPEN)
    breaker._next_probe = math.inf
    breaker.wake()
    async with asyncio.timeout(2.5):
        for lane in made:
            await lane.stop(60.0)


async def test_a_lane_that_stops_while_it_probes_leaves_the_probe_to_another(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    destination.script.failing["connect"] = Trouble("no route")
    lanes = [make() for _ in range(2)]
    store.publish()
    for lane in lanes:
        lane.start()
    await until(lambda: breaker.state is BreakerState.OPEN)
    destination.script.failing.clear()
    destination.script.hanging.add("connect")
    await until(lambda: breaker._is_probing)
    [probing] = [lane for lane in lanes if lane._connector._current is not None]
    await probing.stop(60.0)
    await destination.script.let_go("connect")
    await until(lambda: not store.rows)


# Pauses and counts


async def test_a_paused_lane_takes_no_rows_and_lets_go_of_its_connection(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    team.pause.begin()
    lane = make()
    lane.start()
    store.publish()
    lane._wakeup.ring()
    await until(lambda: destination.script.calls["close"])
    await asyncio.sleep(0.01)
    assert destination.script.calls == {"close": 1}
    assert not store.script.calls["hand_over"]
    team.pause.end()
    await until(lambda: not store.rows)


async def test_a_pause_lets_what_is_in_flight_be_finished(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    first = store.publish()
    destination.script.hanging.add("send")
    lane.start()
    await until(lambda: destination.sent)
    second = store.publish()
    team.pause.begin()
    lane.interrupt()
    await destination.script.let_go("send")
    await until(lambda: destination.script.calls["close"])
    assert destination.accepted == [first]
    assert [row.id for row in store.rows] == [second]
    team.pause.end()
    await until(lambda: not store.rows)


async def test_a_pause_while_it_connects_is_no_outage(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, team: Team, log: Lines
) -> None:
    destination.script.hanging.add("connect")
    store.publish()
    lane.start()
    await until(lambda: destination.script.calls["connect"])
    team.pause.begin()
    lane.interrupt()
    await until(lambda: destination.script.calls["close"])
    assert log.errors == []
    assert len(store.rows) == 1


@pytest.mark.parametrize("error", [Trouble("bug"), TimeoutError()])
async def test_a_pause_is_kept_although_closing_fails(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, team: Team, log: Lines, error: Exception
) -> None:
    destination.script.failing["close"] = error
    team.pause.begin()
    lane.start()
    await until(lambda: destination.script.calls["close"])
    await asyncio.sleep(0.01)
    assert destination.script.calls["close"] == 1
    assert log.errors == []


async def test_a_pause_does_not_keep_a_stop(lane: Lane, destination: ScriptedDestination, team: Team) -> None:
    team.pause.begin()
    lane.start()
    await until(lambda: destination.script.calls["close"])
    async with asyncio.timeout(2.5):
        await lane.stop(60.0)


async def test_outcomes_are_counted(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    for payload in (b"good", b"good", b"bad", b"poison", b"drop", b"later"):
        store.publish(payload=payload)
    answers = {b"bad": refuse, b"poison": poison, b"later": lambda row: Unsent()}
    destination.answer = lambda row: answers.get(row.payload, lambda row: Accepted())(row)
    prepare = lambda row: Dropped() if row.payload == b"drop" else Parcel(row)  # noqa: E731
    make(retry=NoRetry(), prepare=prepare).start()
    await until(lambda: len(store.rows) == 1)
    await until(lambda: team.tally == Tally(sent=2, refused=1, dead=2, dropped=1))


async def test_what_was_not_committed_is_not_counted(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    store.script.failing["commit"] = Trouble("no database")
    store.publish()
    lane.start()
    await until(lambda: store.script.calls["commit"] == 3)
    assert team.tally == Tally()
    store.script.failing.clear()
    await until(lambda: not store.rows)
    await until(lambda: team.tally == Tally(sent=1))


# Rest and order


async def test_idle_lanes_ask_the_database_rarely(make: Callable[..., Lane], store: ScriptedStore) -> None:
    for _ in range(2):
        make(min_interval=60.0, max_interval=60.0).start()
    await until(lambda: store.script.calls["outlook"])
    await asyncio.sleep(0.2)
    assert store.script.calls["hand_over"] <= 4
    assert store.script.calls["outlook"] <= 4


async def test_a_held_back_key_does_not_make_the_lane_spin(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # No poll falls into the time that is watched.
    lane = make(min_interval=60.0, max_interval=60.0)
    destination.answer = refuse
    for key in "abcdefgh":
        for _ in range(3):
            store.publish(key=key)
    lane.start()
    await until(lambda: attempts(store).count(1) == 8)
    await asyncio.sleep(0.2)
    # One visit for each shard that has rows, one more that finds them all held, and a few afterlooks.
    assert store.script.calls["hand_over"] <= 40
    before = store.script.calls["hand_over"]
    await asyncio.sleep(0.1)
    assert store.script.calls["hand_over"] == before


async def test_rows_another_lane_has_in_hand_do_not_make_the_lane_spin(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # Both rows are due, and the first lane is long in sending them.
    for _ in range(2):
        store.publish(key="a", activate_in=timedelta(0))
    destination.script.hanging.add("send")
    make(min_interval=60.0, max_interval=60.0).start()
    await until(lambda: destination.sent)
    make(min_interval=60.0, max_interval=60.0).start()
    await asyncio.sleep(0.2)
    assert store.script.calls["hand_over"] <= 6


async def test_a_waiting_row_holds_back_only_its_own_key(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    held = store.publish(key="a")
    store.publish(key="a")
    others = [store.publish(key=key) for key in "bcdefgh"]
    destination.answer = lambda row: refuse(row) if row.id == held else Accepted()
    lane.start()
    await until(lambda: len(store.rows) == 2)
    assert sorted(destination.accepted) == others
    later = store.publish(key="b")
    await until(lambda: later in destination.accepted)


async def test_a_new_row_in_a_shard_that_was_fruitless_is_not_slept_over(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # One shard at a time, so that a look never shows that nothing is left.
    lane = make(min_interval=60.0, batch_size=1)
    held = store.publish(key="a")
    destination.answer = lambda row: refuse(row) if row.id == held else Accepted()
    # Refused; the shard is empty-handed; the round is over and was rested from; the shard is empty-handed again.
    for _ in range(4):
        store.publish(key="a")
        await lane.run_once()
    assert destination.sent[0][0] == held
    assert lane._rounds.next() != lane._rounds.all
    late = store.publish(key=next(key for key in map(str, range(1000)) if _shard(store, key) == _shard(store, "a")))
    lane._wakeup.ring()
    async with asyncio.timeout(2.5):
        await lane.run_once()
        await lane.run_once()
    assert destination.accepted == [late]


async def test_a_shard_whose_rows_all_wait_is_left_out_while_another_has_rows(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    lane = make(batch_size=2)
    held = store.publish(key="a")
    destination.answer = lambda row: refuse(row) if row.id == held else Accepted()
    await lane.run_once()
    store.publish(key="a")
    other = next(key for key in map(str, range(1000)) if _shard(store, key) != _shard(store, "a"))
    ids = [store.publish(key=other) for _ in range(3)]
    lane._rounds.widen()
    await lane.run_once()
    assert destination.accepted == ids[:1]
    assert {shard.number for shard in lane._rounds.all} - {shard.number for shard in lane._rounds.next()} == {
        _shard(store, "a")
    }


def _shard(store: ScriptedStore, key: str) -> int:
    from zlib import crc32

    return crc32(key.encode()) % 16


async def test_order_of_a_key_is_kept_through_retries_outages_and_restarts(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    import random

    chance = random.Random(5)
    ids = {key: [store.publish(key=key) for _ in range(30)] for key in "abc"}

    def answer(row: OutboxRow) -> Verdict:
        verdicts: list[Verdict] = [Accepted(), Refused(Trouble("no")), Unsent(Trouble("down"))]
        return chance.choices(verdicts, [8, 2, 1])[0]

    destination.answer = answer
    lanes = [
        make(retry=ConstantRetry(delay_seconds=0.001, max_attempts=None), batch_size=7, min_interval=0.002)
        for _ in range(3)
    ]
    for _ in range(4):
        for lane in lanes:
            lane.start()
        await asyncio.sleep(0.01)
        for lane in lanes:
            await lane.stop(0.0)
    for lane in lanes:
        lane.start()
    await until(lambda: not store.rows, seconds=10)
    for mine in ids.values():
        assert [row_id for row_id in dict.fromkeys(destination.accepted) if row_id in mine] == mine


async def test_shards_take_turns(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    busy = [store.publish(key="a") for _ in range(50)]
    other = store.publish(key="b")
    assert _shard(store, "a") != _shard(store, "b")
    make(batch_size=5).start()
    await until(lambda: not store.rows)
    position = destination.accepted.index(other)
    assert position <= 5
    assert set(busy) < set(destination.accepted)


async def test_all_outcomes_together(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore
) -> None:
    answers: dict[int, Verdict] = {
        store.publish(): Accepted(),
        store.publish(): Refused(Trouble("no")),
        store.publish(): Poison("invalid", Trouble("bad")),
        store.publish(): Unsent(Trouble("down")),
    }
    destination.answer = lambda row: answers[row.id]
    make().start()
    await until(lambda: len(store.rows) == 2 and len(destination.sent) >= 5)
    assert [(row.id, row.attempts_count) for row in store.rows] == [(2, 1), (4, 0)]
    assert [row.id for row, _ in store.dead_letters] == [3]


async def test_what_hangs_when_cancelled_does_not_keep_the_stop(
    make: Callable[..., Lane], destination: ScriptedDestination, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_outbox._engine.service.CANCEL_SECONDS", 0.02)
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    destination.before_answer = stubborn
    store.publish()
    lane = make()
    lane.start()
    await until(lambda: destination.sent)
    async with asyncio.timeout(2.5):
        await lane.stop(0.01)
    assert lane._task is not None
    gate.set()
    await asyncio.wait([lane._task])


# ------------------------------------------------------------------------------------------------------- a part is down


async def test_rows_of_a_part_that_is_down_stop_no_others_and_are_not_looked_at_all_the_time(
    lane: Lane, destination: ScriptedDestination, store: ScriptedStore, breaker: Breaker
) -> None:
    """All shards have rows of it; a row of another part is carried whatever comes before it."""
    is_down = True
    part = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: part if is_down and row.payload == b"x" else Accepted()
    waiting = {store.publish(payload=b"x", key=f"x-{number}") for number in range(4 * SHARDS)}
    lane.start()
    await until(lambda: {row for each in destination.sent for row in each} == waiting)
    for number in range(3):
        looks = len(destination.sent)
        store.publish(key=f"fine-{number}")
        await until(lambda number=number: len(destination.accepted) == number + 1)  # type: ignore[misc]
        assert len(destination.sent) - looks < 4 * SHARDS
    assert breaker.state is BreakerState.CLOSED
    assert isinstance(breaker.last_error, Trouble)
    await until(lambda: attempts(store) == [0] * len(waiting))
    is_down = False
    await until(lambda: not store.rows and breaker.last_error is None)


class FakeParts:
    """A part that is down until the test says otherwise."""

    def __init__(self) -> None:
        self.is_down = True

    def seconds_to_next_try(self, part: str) -> float | None:
        return 0.05 if self.is_down else None


@pytest.fixture
def parts(team: Team, breaker: Breaker, monkeypatch: pytest.MonkeyPatch) -> FakeParts:
    parts = FakeParts()
    monkeypatch.setattr(team.deferrer, "_parts", parts)
    monkeypatch.setattr(breaker, "_are_parts_down", lambda: team.deferrer.are_parts_down)
    return parts


async def test_a_backlog_of_a_part_that_is_down_is_put_out_of_the_way_and_sent_in_order_when_it_is_back(
    *,
    make: Callable[..., Lane],
    runtime: Runtime,
    parts: FakeParts,
    destination: ScriptedDestination,
    store: ScriptedStore,
    breaker: Breaker,
    log: Lines,
) -> None:
    """In each shard it is as much as five hand-overs, and others stand behind it."""
    part = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: part if parts.is_down and row.payload == b"x" else Accepted()
    waiting = [store.publish(payload=b"x", key=f"x-{number % 60}") for number in range(5 * 2 * SHARDS)]
    fine = [store.publish(key=f"fine-{number}") for number in range(3 * SHARDS)]
    make(batch_size=2, max_interval=600.0, min_interval=600.0).start()
    runtime.start()
    await until(lambda: len(destination.accepted) == len(fine))
    assert sorted(destination.accepted) == fine
    await until(lambda: attempts(store) == [0] * len(waiting))
    assert breaker.state is BreakerState.CLOSED
    assert isinstance(breaker.last_error, Trouble)
    assert log.recoveries == []
    parts.is_down = False
    await until(lambda: not store.rows)
    assert sorted(destination.accepted) == sorted([*fine, *waiting])
    for number in range(60):
        its = [row_id for row_id in destination.accepted if row_id in waiting[number::60]]
        assert its == waiting[number::60], "in the order of the key"
    await until(lambda: len(log.recoveries) == 1)


async def test_rows_of_a_part_that_is_back_are_made_due_although_that_fails_at_first(
    make: Callable[..., Lane],
    runtime: Runtime,
    parts: FakeParts,
    destination: ScriptedDestination,
    store: ScriptedStore,
) -> None:
    part = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: part if parts.is_down else Accepted()
    for number in range(5 * SHARDS):
        store.publish(key=f"x-{number}")
    store.script.next_failures["make_due"] = deque([Trouble("the database"), Trouble("the database")])
    lane = make(batch_size=1)
    runtime.start()
    lane.start()
    await until(lambda: all(row.last_attempt_at is not None for row in store.rows))
    assert store.script.calls["make_due"] == 0
    parts.is_down = False
    await until(lambda: not store.rows)
    assert store.script.calls["make_due"] == 3


async def test_rows_that_cannot_be_deferred_are_not_taken_again_at_once(
    make: Callable[..., Lane],
    log: Lines,
    runtime: Runtime,
    parts: FakeParts,
    team: Team,
    destination: ScriptedDestination,
    store: ScriptedStore,
) -> None:
    part = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: part if parts.is_down else Accepted()
    ids = [store.publish(key="a") for _ in range(4)]
    store.script.refused = dict.fromkeys(ids, Trouble("a trigger says no"))
    runtime.start()
    make(batch_size=2).start()
    await until(lambda: len(destination.sent) == 2)
    await until(lambda: log.warnings)
    assert not team.deferrer.are_parts_down, "no row waits"
    await asyncio.sleep(1.0)
    assert len(destination.sent) < 10, "a shard whose rows are all for it rests"
    [line] = log.warnings
    assert f"refuses to defer rows of a part of the destination that is down, such as {ids[0]} in 'orders'" in line
    assert "a trigger says no" in line
    store.script.refused.clear()
    parts.is_down = False
    await until(lambda: not store.rows)


async def test_what_is_deferred_while_others_are_made_due_is_not_forgotten(
    make: Callable[..., Lane],
    runtime: Runtime,
    parts: FakeParts,
    team: Team,
    store: ScriptedStore,
) -> None:
    lane = make()
    team.deferrer.note(["x"])
    parts.is_down = False
    store.script.hanging.add("make_due")
    making = asyncio.create_task(lane._make_due())
    await until(lambda: store.script.calls["make_due"] == 1)
    # Another lane has committed some.
    team.deferrer.note(["x"])
    await store.script.let_go("make_due")
    await making
    assert team.deferrer.back() == ["x"]


async def test_all_rows_of_a_part_that_is_back_are_made_due_however_many_they_are(
    make: Callable[..., Lane],
    runtime: Runtime,
    parts: FakeParts,
    destination: ScriptedDestination,
    store: ScriptedStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "MOST_MADE_DUE", SHARDS)
    part = Unsent(Trouble("a part"), part="x")
    destination.answer = lambda row: part if parts.is_down else Accepted()
    # In one shard, so that each hand-over is full: one of its rows tries again, and the others wait for the part.
    keys = [key for key in (f"key-{number}" for number in range(2000)) if crc32(key.encode()) % SHARDS == 0][:80]
    for key in keys:
        store.publish(key=key)
    lane = make(batch_size=4)
    runtime.start()
    lane.start()
    await until(lambda: all(row.last_attempt_at is not None for row in store.rows))
    parts.is_down = False
    await until(lambda: not store.rows)


async def test_a_shard_whose_rows_are_deferred_is_looked_at_again_while_others_always_have_work(
    make: Callable[..., Lane],
    runtime: Runtime,
    parts: FakeParts,
    destination: ScriptedDestination,
    store: ScriptedStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 600.0)
    part = Unsent(Trouble("a part"), part="x")
    keys = [key for key in (f"key-{number}" for number in range(400)) if crc32(key.encode()) % SHARDS == 0][:7]

    def answer(row: OutboxRow) -> Verdict:
        if row.payload == b"x":
            return part
        if row.payload == b"busy":
            store.publish(key=row.key, payload=b"busy")
        return Accepted()

    destination.answer = answer
    for key in keys[:6]:
        store.publish(key=key, payload=b"x")
    fine = store.publish(key=keys[6])
    for number in range(60):
        if crc32(b"busy-%d" % number) % SHARDS != 0:
            store.publish(key=f"busy-{number}", payload=b"busy")
    lane = make(batch_size=1)
    runtime.start()
    lane.start()
    await until(lambda: fine in destination.accepted)


async def test_when_a_part_is_back_its_rows_wait_no_longer_than_their_shard_rests(
    make: Callable[..., Lane], runtime: Runtime, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    """However long the polling interval is: nothing rings when a part is back."""
    verdicts: list[Verdict] = [Unsent(Trouble("a part"), part="x")] * 3
    destination.answer = lambda row: verdicts.pop() if verdicts else Accepted()
    lane = make(min_interval=600.0, max_interval=600.0)
    runtime.start()
    store.publish()
    lane.start()
    await until(lambda: not store.rows)
    assert len(destination.sent) == 4


async def test_while_nothing_but_a_part_that_is_down_has_rows_the_table_is_asked_less_and_less(
    *,
    make: Callable[..., Lane],
    runtime: Runtime,
    destination: ScriptedDestination,
    store: ScriptedStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounds, "FIRST_REST_SECONDS", 60.0)
    destination.answer = lambda row: Unsent(Trouble("a part"), part="x")
    ids = [store.publish() for _ in range(SHARDS)]
    # Polls that are close together: the looks below come soon, and are not what grows.
    lane = make(min_interval=0.01, max_interval=0.02)
    runtime.start()
    await until(lambda: store.lines)
    lane.start()
    await until(lambda: sum(map(len, destination.sent)) == len(ids))
    for line in store.lines:
        line.ring("orders")
    asked = store.script.calls["hand_over"]
    await until(lambda: store.script.calls["hand_over"] > asked + 2)
    assert sum(map(len, destination.sent)) == len(ids), "no row is taken while its shard rests"


async def test_the_database_may_end_a_hand_over_only_when_its_lane_has_given_it_up(
    make: Callable[..., Lane], store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = store.hand_over

    def hand_over(*args: Any, **limits: Any) -> Any:
        asked.append(limits["idle_seconds"])
        return real(*args, **limits)

    monkeypatch.setattr(store, "hand_over", hand_over)
    make(send_timeout=123.0).start()
    await until(lambda: asked)
    assert asked[0] > 123.0


async def test_two_lanes_whose_looks_take_long_do_not_ring_one_another_awake_without_end(
    make: Callable[..., Lane], runtime: Runtime, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where connections are slow to come: each is at work when the other one has looked in vain."""
    step = store.script.step

    async def slow_step(call: str) -> None:
        if call in {"hand_over", "outlook"}:
            await asyncio.sleep(0.08)
        await step(call)

    monkeypatch.setattr(store.script, "step", slow_step)
    runtime.start()
    await until(lambda: store.lines)
    for _ in range(2):
        make(min_interval=600.0, max_interval=600.0).start()
    [line] = store.lines
    line.ring("orders")
    await asyncio.sleep(1.0)
    looks = store.script.calls["hand_over"]
    assert looks < 10
    await asyncio.sleep(0.5)
    assert store.script.calls["hand_over"] == looks
    # Nor is any ring lost.
    store.publish()
    await until(lambda: not store.rows)
