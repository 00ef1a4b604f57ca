"""Verdicts outlive every failure of the database behind them: what was answered is written, and not sent again."""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

from faststream_outbox._engine.relaying import account, remembered
from faststream_outbox._engine.relaying import lane as lane_module
from faststream_outbox._engine.relaying.account import Account, Answer
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.sender import Sent
from faststream_outbox._engine.relaying.team import Tally, Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.memory.handing_over import MemoryHandOver
from faststream_outbox._store.memory.records import Record, utc_now
from faststream_outbox._values.outcome import (
    DELIVERED,
    Accepted,
    Dead,
    Outcome,
    Poison,
    Retry,
    Settlement,
    Verdict,
)
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.retry import ConstantRetry, NoRetry
from tests.engine.fakes import Clock, Lines, ScriptedDestination, ScriptedStore, Trouble, outage, poison, refuse, until
from tests.rows import make_row

Make = Callable[..., Lane]
SHARD = Shard("orders", 0)


def copies(destination: ScriptedDestination) -> Counter[int]:
    return Counter(row_id for hand_over in destination.sent for row_id in hand_over)


def shard_of(key: str) -> int:
    return crc32(key.encode()) % 16


def answer_on(row: OutboxRow, outcome: Outcome = DELIVERED, *, made_at: float = 0.0) -> Answer:
    taken = MemoryHandOver([SHARD], [], False, True, [Record(row, 0, False, None)], utc_now())
    account = Account(0.0, taken, to_send=[row])
    account.answered(Sent([Accepted()]), [Settlement(row, outcome)])
    account.answered_at = made_at
    [answer] = account.answers()
    return answer


async def fail(lane: Lane) -> None:
    """Make a hand-over that does not come through."""
    with pytest.raises(Trouble):
        await lane.run_once()


async def run(lane: Lane, rounds: int = 3) -> None:
    for _ in range(rounds):
        await lane.run_once()


def quick(make: Make, **options: Any) -> Lane:
    """Make a lane that hardly rests, whether there is something to do or not."""
    lane = make(**options)

    async def rest(**_options: Any) -> None:
        await asyncio.sleep(0.001)

    lane._pacer.rest = rest  # type: ignore[method-assign]
    return lane


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (remembered, account):
        monkeypatch.setattr(module, "time", clock)
    return clock


# Failures of the database


@pytest.mark.parametrize("call", ["hand_over_settle", "commit"])
async def test_what_was_answered_is_written_and_not_sent_again_however_long_that_takes(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, call: str
) -> None:
    ids = [store.publish(key="a") for _ in range(5)]
    store.script.failing[call] = Trouble("no database")
    quick(make).start()
    await until(lambda: store.script.calls[call] == 20)
    assert destination.sent == [ids]
    assert team.tally == Tally()
    store.script.failing.clear()
    await until(lambda: not store.rows)
    assert destination.sent == [ids]
    await until(lambda: team.tally == Tally(sent=5))
    assert team.remembered.is_empty


async def test_a_refusal_that_could_not_be_written_counts_once(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    row_id = store.publish()
    destination.answer = refuse
    store.script.next_failures["commit"] = deque([Trouble("no database")] * 3)
    quick(make).start()
    await until(lambda: team.tally == Tally(refused=1))
    assert [row.attempts_count for row in store.rows] == [1]
    assert destination.sent == [[row_id]]


async def test_a_settle_that_is_cut_off_is_made_up_for(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    row_id = store.publish()
    store.script.hanging.add("hand_over_settle")
    lane = quick(make)
    lane.start()
    await until(lambda: store.script.calls["hand_over_settle"])
    await lane.stop(0.0)
    await store.script.let_go("hand_over_settle")
    lane.start()
    await until(lambda: not store.rows)
    assert destination.sent == [[row_id]]


async def test_while_rows_are_taken_for_long_their_answers_are_still_heard(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faststream_outbox._engine.relaying.lane.DATABASE_SECONDS", 0.2)
    row_id = store.publish()
    lane = quick(make, send_timeout=0.2)

    async def slowly(*_: Any) -> None:
        await asyncio.sleep(0.3)

    step = store.script.step

    async def slow_step(call: str) -> None:
        if call == "hand_over":
            await slowly()
        await step(call)

    monkeypatch.setattr(store.script, "step", slow_step)
    destination.before_answer = lambda: asyncio.sleep(0.15)
    await lane.run_once()
    assert destination.accepted == [row_id]
    assert store.rows == []


async def test_three_lanes_send_each_row_once_through_failures_without_end(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    chance = random.Random(7)
    ids = [store.publish(key=f"key-{number % 9}") for number in range(200)]
    step = store.script.step

    async def step_or_fail(call: str) -> None:
        await step(call)
        if call in {"hand_over_settle", "commit"} and chance.random() < 0.6:
            raise Trouble("no database")

    store.script.step = step_or_fail  # type: ignore[method-assign]
    for _ in range(3):
        quick(make, batch_size=7).start()
    await until(lambda: not store.rows, seconds=20)
    assert copies(destination) == dict.fromkeys(ids, 1)


async def test_waves_of_a_hand_over_that_failed_are_not_sent_again(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    ids = [store.publish(key="a", payload=bytes(number)) for number in range(6)]
    store.script.failing["commit"] = Trouble("no database")

    def prepare(row: OutboxRow) -> Parcel:
        return Parcel(row._replace(key=f"a-{len(row.payload) // 2}"))

    lane = quick(make, prepare=prepare)
    await fail(lane)
    assert destination.sent == [ids[:2], ids[2:4], ids[4:]]
    await fail(lane)
    store.script.failing.clear()
    late = store.publish(key="a")
    await run(lane)
    assert destination.sent == [ids[:2], ids[2:4], ids[4:], [late]]
    assert store.rows == []


async def begin_without_end(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> tuple[int, Lane, Lane]:
    """Let a lane wait for an answer to a row whose transaction the server has ended; return the row and two lanes."""
    row_id = store.publish(key="a")
    destination.script.hanging.add("send")
    first, second = quick(make), quick(make)
    first.start()
    await until(lambda: destination.sent)
    # Others can take the row.
    store._locked.clear()
    store._records[row_id].locked = False
    return row_id, first, second


async def test_a_shard_whose_transaction_was_lost_waits_for_the_lane_that_has_its_rows(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    row_id, _, second = await begin_without_end(make, destination, store)
    later = store.publish(key="a")
    await run(second)
    assert destination.sent == [[row_id]]
    assert [row.id for row in store.rows] == [row_id, later]
    store.script.next_failures["hand_over_settle"] = deque([Trouble("connection is closed")])
    await destination.script.let_go("send")
    await until(lambda: not store.rows)
    assert destination.sent == [[row_id], [later]]


async def test_a_lane_that_never_comes_back_does_not_keep_its_place(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, clock: Clock
) -> None:
    row_id, first, second = await begin_without_end(make, destination, store)
    clock.now += 1000.0
    destination.script.hanging.clear()
    await run(second)
    assert destination.sent == [[row_id], [row_id]]
    assert store.rows == []
    await first.stop()


# Rows that are no longer what was answered


async def lose_the_answer(lane: Lane, store: ScriptedStore) -> None:
    """Make a hand-over whose commit goes through, which the lane does not learn."""
    store.script.next_failures["commit_answer"] = deque([Trouble("connection is closed")])
    await fail(lane)


async def test_a_row_that_was_replayed_under_its_id_is_sent(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    row_id = store.publish(key="a")
    destination.answer = poison
    lane = quick(make, hold_key=True)
    await lose_the_answer(lane, store)
    store.revive([row_id])
    destination.answer = lambda row: Accepted()
    await run(lane)
    assert destination.accepted == [row_id]
    assert store.rows == []
    assert store.dead_letters == []


async def test_another_row_with_the_same_id_is_sent(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    first = store.publish(key="a")
    lane = quick(make)
    await lose_the_answer(lane, store)
    store._ids = iter([first])  # type: ignore[assignment]
    assert store.publish(key="a") == first
    await run(lane)
    assert destination.accepted == [first, first]
    assert store.rows == []
    assert team.remembered.is_empty


@pytest.mark.parametrize(
    "changes",
    [
        {"idempotency_key": "another"},
        {"attempts_count": 1},
        {"deliveries_count": 2},
        {"last_attempt_at": utc_now()},
        {"payload": b"corrected"},
        {"headers": {"corrected": "yes"}},
        {"key": "b"},
        {"queue": "invoices"},
    ],
)
def test_an_answer_is_about_the_row_as_it_was_sent(changes: dict[str, Any]) -> None:
    row = make_row(key="a")
    answer = answer_on(row)
    assert answer.is_about(row._replace(acquired_at=utc_now()))
    assert not answer.is_about(row._replace(**changes))


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_rows_that_are_gone_are_forgotten_when_they_are_looked_up(
    make: Make, store: ScriptedStore, team: Team, clock: Clock, is_quiet: bool
) -> None:
    store.publish(key="a")
    lane = quick(make)
    await lose_the_answer(lane, store)
    assert not team.remembered.is_empty
    clock.now += remembered.LOOK_UP_SECONDS
    if not is_quiet:
        store.publish(key="a")
    await run(lane)
    assert team.remembered.is_empty


async def test_rows_that_wait_in_the_table_are_not_taken_for_gone(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    """Behind as many rows as a hand-over has, or in the hands of another process."""
    row_id = store.publish(key="a")
    lane = quick(make)
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    shard = store._records[row_id].shard
    store._locked.add(shard)
    for _ in range(3):
        clock.now += remembered.LOOK_UP_SECONDS
        await run(lane)
    assert not team.remembered.is_empty
    store._locked.discard(shard)
    await run(lane)
    assert destination.sent == [[row_id]]


@pytest.mark.parametrize("retry", [NoRetry(), ConstantRetry(delay_seconds=60)])
async def test_rows_whose_outcome_was_written_after_all_are_forgotten_though_they_are_still_there(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, clock: Clock, retry: Any
) -> None:
    store.publish(key="a")
    destination.answer = refuse
    lane = quick(make, retry=retry)
    await lose_the_answer(lane, store)
    clock.now += remembered.LOOK_UP_SECONDS
    await run(lane)
    assert team.remembered.is_empty


async def test_an_outage_of_the_database_makes_nothing_be_forgotten(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, clock: Clock
) -> None:
    row_id = store.publish(key="a")
    lane = quick(make)
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    store.script.failing["hand_over"] = Trouble("no database")
    for _ in range(3):
        clock.now += remembered.LOOK_UP_SECONDS
        await fail(lane)
    store.script.failing.clear()
    await run(lane)
    assert destination.sent == [[row_id]]
    assert store.rows == []


# The order of a key


async def test_a_remembered_retry_keeps_its_key_waiting(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    first, second, other = store.publish(key="a"), store.publish(key="a"), store.publish(key=_beside("a"))
    destination.answer = lambda row: refuse(row) if row.id == first else Accepted()
    lane = quick(make, retry=ConstantRetry(delay_seconds=0.05))
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    destination.answer = lambda row: Accepted()
    late = store.publish(key=_beside("a"))
    await lane.run_once()
    assert destination.accepted == [other, late]
    lane.start()
    await until(lambda: not store.rows)
    assert destination.accepted == [other, late, first, second]


async def test_a_remembered_dead_letter_that_holds_its_key_keeps_it_waiting(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    bad, behind = store.publish(key="a"), store.publish(key="a")
    destination.answer = poison
    lane = quick(make, hold_key=True)
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    destination.answer = lambda row: Accepted()
    await run(lane)
    assert destination.accepted == []
    assert [row.id for row, _ in store.dead_letters] == [bad]
    assert [row.id for row in store.rows] == [behind]


@pytest.mark.parametrize("answer", [lambda row: Accepted(), poison])
async def test_behind_other_remembered_verdicts_a_key_goes_on(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, answer: Callable[[OutboxRow], Verdict]
) -> None:
    first = store.publish(key="a")
    destination.answer = answer
    lane = quick(make)
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    destination.answer = lambda row: Accepted()
    second = store.publish(key="a")
    await lane.run_once()
    assert destination.sent == [[first], [second]]
    assert store.rows == []


def test_the_delay_of_a_remembered_retry_counts_from_its_verdict() -> None:
    answer = answer_on(make_row(), Retry(60.0, "no"), made_at=10.0)
    assert answer.to_write(now=35.0).outcome == Retry(35.0, "no")
    assert answer.to_write(now=100.0).outcome == Retry(0.0, "no")


@pytest.mark.parametrize(
    ("outcome", "holds"),
    [(DELIVERED, False), (Retry(1.0), True), (Dead("invalid"), False), (Dead("invalid", holds_key=True), True)],
)
def test_an_answer_holds_its_key_as_its_outcome_will(outcome: Any, holds: bool) -> None:
    answer = answer_on(make_row(), outcome)
    assert answer.holds_key is holds


def _beside(key: str) -> str:
    """Find another key of the same shard."""
    return next(other for other in map(str, range(1000)) if shard_of(other) == shard_of(key))


# Outcomes that the database refuses


async def test_a_row_whose_outcome_is_refused_is_set_aside_alone(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, log: Lines
) -> None:
    bad, good = store.publish(key="a"), store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    quick(make).start()
    await until(lambda: [row.id for row in store.rows] == [bad])
    late = store.publish(key="a")
    await until(lambda: late in destination.accepted)
    assert copies(destination) == dict.fromkeys([bad, good, late], 1)
    assert team.remembered.set_aside == 1
    assert str(team.remembered.last_error) == "a trigger says no"
    await until(lambda: team.tally == Tally(sent=2))
    [line] = log.errors
    assert f"{bad} in 'orders'" in line
    assert "a trigger says no" in line


async def test_what_was_set_aside_is_written_when_that_works(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, log: Lines, clock: Clock
) -> None:
    bad = store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    lane = quick(make)
    await run(lane)
    attempts = len(store.attempted)
    await run(lane)
    assert len(store.attempted) == attempts, "it is not tried all the time"
    for _ in range(8):
        clock.now += account.RETRY_SECONDS[1]
        await run(lane)
    assert len(store.attempted) == attempts + 8
    assert len(log.errors) == 1, "it is named once"
    store.script.refused.clear()
    clock.now += account.RETRY_SECONDS[1]
    await run(lane)
    assert store.rows == []
    assert destination.sent == [[bad]]
    assert team.remembered.is_empty
    assert team.remembered.last_error is None
    assert team.tally == Tally(sent=1)
    assert any(line.endswith(f"set aside are written: {bad} in 'orders'") for _, line in log.all)


async def test_set_aside_rows_do_not_block_what_stands_behind_them(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    bad = [store.publish(key="a") for _ in range(6)]
    store.script.refused.update(dict.fromkeys(bad, Trouble("a trigger says no")))
    good = [store.publish(key="a") for _ in range(6)]
    quick(make, batch_size=3).start()
    await until(lambda: [row.id for row in store.rows] == bad)
    assert copies(destination) == dict.fromkeys([*bad, *good], 1)
    assert destination.accepted == [*bad, *good]


@pytest.mark.parametrize("hold_key", [False, True])
async def test_a_set_aside_row_that_holds_its_key_keeps_it_waiting_and_no_other(
    make: Make,
    destination: ScriptedDestination,
    store: ScriptedStore,
    clock: Clock,
    hold_key: bool,
) -> None:
    bad, behind = store.publish(key="a"), [store.publish(key="a") for _ in range(4)]
    other_queue = store.publish("invoices", key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    destination.answer = lambda row: refuse(row) if row.id == bad else Accepted()
    retry = NoRetry() if hold_key else ConstantRetry(delay_seconds=0.0)
    lane = quick(make, batch_size=2, hold_key=hold_key, retry=retry, queues=["orders", "invoices"])
    await run(lane, 6)
    others = [store.publish(key=_beside("a")) for _ in range(4)]
    await run(lane, 6)
    assert destination.accepted == [other_queue, *others]
    clock.now += account.RETRY_SECONDS[1]
    await run(lane, 6)
    assert destination.accepted == [other_queue, *others], "also while its outcome is tried again"
    store.script.refused.clear()
    destination.answer = lambda row: Accepted()
    clock.now += account.RETRY_SECONDS[1]
    await run(lane, 6)
    if hold_key:
        assert [row.id for row in store.rows] == behind
        store.revive([bad])
        await run(lane, 6)
    assert destination.accepted == [other_queue, *others, bad, *behind]
    assert store.rows == []


async def test_what_is_left_out_is_not_taken_for_gone(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    bad = store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    lane = quick(make)
    await run(lane)
    [answer] = team.remembered._answers.values()
    answer.next_try = clock.now + 10 * remembered.LOOK_UP_SECONDS
    for _ in range(3):
        clock.now += remembered.LOOK_UP_SECONDS
        store.publish(key="a")
        await run(lane)
    assert team.remembered.set_aside == 1
    assert copies(destination)[bad] == 1


async def test_a_row_that_was_set_aside_and_deleted_is_forgotten(
    make: Make, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    bad = store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    lane = quick(make)
    await run(lane)
    store.forget(bad)
    for _ in range(2):
        clock.now += remembered.LOOK_UP_SECONDS
        await run(lane)
    assert team.remembered.set_aside == 0
    assert team.remembered.last_error is None


async def test_a_set_aside_row_whose_next_write_fails_otherwise_stays_set_aside(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, log: Lines, clock: Clock
) -> None:
    bad = store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    lane = quick(make)
    await run(lane)
    clock.now += account.RETRY_SECONDS[1]
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    assert team.remembered.set_aside == 1
    await run(lane)
    assert destination.sent == [[bad]]
    assert len(log.errors) == 1


async def test_with_too_much_set_aside_nothing_more_is_sent_until_some_is_written(
    make: Make,
    destination: ScriptedDestination,
    store: ScriptedStore,
    team: Team,
    log: Lines,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "MOST_SET_ASIDE", 4)
    ids = [store.publish(key="a") for _ in range(20)]
    store.script.refused.update(dict.fromkeys(ids, Trouble("permission denied")))
    lane = quick(make, batch_size=3)
    monkeypatch.setattr("faststream_outbox._engine.relaying.lane.FULL_SECONDS", 0.001)
    await run(lane, 10)
    assert destination.accepted == ids[:6]
    assert [line for line in log.errors if "takes no more rows: 6 are set aside" in line]
    calls = store.script.calls["hand_over"]
    await run(lane, 10)
    assert store.script.calls["hand_over"] == calls, "and nothing is taken"
    for _ in range(5):
        clock.now += account.RETRY_SECONDS[1]
        await run(lane, 10)
    assert destination.accepted == ids[:6]
    store.script.refused.clear()
    for _ in range(3):
        clock.now += account.RETRY_SECONDS[1]
        await run(lane, 10)
    assert copies(destination) == dict.fromkeys(ids, 1)
    assert store.rows == []
    assert sum("takes no more rows" in line for line in log.errors) == 1
    assert sum("takes rows again" in line for _, line in log.all) == 1


# Bounds


async def test_while_verdicts_cannot_be_written_only_so_many_are_made(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    ids = [store.publish() for _ in range(160)]
    team.remembered._in_flight = 20
    store.script.failing["commit"] = Trouble("no database")
    lanes = [quick(make, batch_size=10) for _ in range(2)]
    for lane in lanes:
        lane.start()
    await until(lambda: store.script.calls["commit"] >= 60)
    # What is in flight when the limit is met may come on top.
    assert len(destination.accepted) <= 20 + 2 * 10
    assert copies(destination).most_common(1)[0][1] == 1
    store.script.failing.clear()
    await until(lambda: not store.rows)
    assert copies(destination) == dict.fromkeys(ids, 1)


async def test_verdicts_on_rows_that_are_gone_do_not_stop_the_flow(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LOOK_UP_SECONDS", 0.0)
    team.remembered._in_flight = 1
    first = [store.publish(key="a") for _ in range(4)]
    lane = quick(make, batch_size=4)
    await lose_the_answer(lane, store)
    late = [store.publish(key="a") for _ in range(4)]
    lane.start()
    await until(lambda: not store.rows)
    assert destination.sent == [first, late]
    assert team.remembered.is_empty


async def test_verdicts_on_rows_that_are_gone_from_one_shard_do_not_stop_another(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "LOOK_UP_SECONDS", 0.0)
    team.remembered._in_flight = 1
    first = [store.publish(key="a") for _ in range(4)]
    lane = quick(make, batch_size=4)
    await lose_the_answer(lane, store)
    other = next(key for key in "bcdefgh" if shard_of(key) != shard_of("a"))
    # More than one hand-over takes: none is a look at all shards.
    late = [store.publish(key=other) for _ in range(12)]
    lane.start()
    await until(lambda: not store.rows)
    assert destination.sent == [first, late[:4], late[4:8], late[8:]]


# What is said


async def test_the_database_works_again_when_an_outcome_is_written_and_not_when_rows_are_taken(
    make: Make, store: ScriptedStore, log: Lines
) -> None:
    store.publish()
    store.script.failing["hand_over_settle"] = Trouble("no database")
    quick(make).start()
    await until(lambda: store.script.calls["hand_over_settle"] == 5)
    assert log.recoveries == []
    assert len(log.errors) == 1
    store.script.failing.clear()
    await until(lambda: log.recoveries)
    assert store.rows == []


async def test_other_loops_do_not_say_that_the_database_works_again_while_outcomes_cannot_be_written(
    make: Make, runtime: Runtime, store: ScriptedStore, log: Lines
) -> None:
    store.publish()
    store.script.failing["hand_over_settle"] = Trouble("no database")
    runtime.start()
    quick(make).start()
    await until(lambda: store.script.calls["hand_over_settle"] > 10 and store.script.calls["rescue"] > 10)
    assert log.recoveries == []
    assert len(log.errors) == 1
    store.script.failing.clear()
    await until(lambda: log.recoveries)


async def test_a_hand_over_without_an_answer_does_not_say_that_outcomes_can_be_written(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    first = store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    lane.health.failed(Trouble("no database"), lane.name)
    destination.answer = outage
    assert shard_of("a") != shard_of("b")
    second = store.publish(key="b")
    # The shard of the first one has just been visited.
    await lane.run_once()
    assert destination.sent == [[first], [second]]
    assert log.recoveries == []
    await until_written(lane, store, first)
    assert log.recoveries == ["outbox database: works again"]


async def until_written(lane: Lane, store: ScriptedStore, row_id: int) -> None:
    while row_id in [row.id for row in store.rows]:
        await lane.run_once()


async def test_the_database_works_again_when_a_look_is_in_vain(make: Make, store: ScriptedStore, log: Lines) -> None:
    store.script.next_failures["hand_over"] = deque([Trouble("no database")])
    quick(make).start()
    await until(lambda: log.recoveries)


async def test_a_dead_letter_is_named_in_the_log(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, log: Lines
) -> None:
    good, bad = store.publish(key="a"), store.publish(key="b")
    destination.answer = lambda row: Poison("too_large", Trouble("11 MiB")) if row.id == bad else Accepted()
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    lane.start()
    await until(lambda: any("dead letter" in line for line in log.errors))
    assert destination.accepted == [good]
    [line] = [line for line in log.errors if "dead letter" in line]
    assert f"row {bad} in 'orders', key 'b', goes to the dead letters: too_large: Trouble: 11 MiB" in line


async def test_many_rows_that_are_set_aside_at_once_are_one_line(make: Make, store: ScriptedStore, log: Lines) -> None:
    ids = [store.publish(key="a") for _ in range(25)]
    store.script.refused.update(dict.fromkeys(ids, Trouble("permission denied")))
    await run(quick(make))
    [line] = log.errors
    assert "and 15 more" in line


def test_a_forwarder_without_trouble_remembers_nothing() -> None:
    assert Remembered().is_empty
    assert Remembered().set_aside == 0
    assert Remembered().seconds_to_wait() == 0.0


# While nothing is sent


async def test_during_a_pause_outcomes_are_written_and_nothing_is_sent(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    row_id = store.publish(key="a")
    store.script.failing["commit"] = Trouble("no database")
    lane = quick(make)
    lane.start()
    await until(lambda: store.script.calls["commit"])
    team.pause.begin()
    lane.interrupt()
    late = store.publish(key="a")
    attempts = store.script.calls["commit"]
    await until(lambda: store.script.calls["commit"] > attempts + 1)
    store.script.failing.clear()
    await until(lambda: [row.id for row in store.rows] == [late])
    assert destination.sent == [[row_id]]
    assert team.tally == Tally(sent=1)
    team.pause.end()
    await until(lambda: not store.rows)
    assert destination.sent == [[row_id], [late]]


async def test_during_a_pause_what_is_set_aside_is_tried_when_it_is_time(
    make: Make, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    bad = store.publish(key="a")
    store.script.refused[bad] = Trouble("a trigger says no")
    lane = quick(make)
    await run(lane)
    team.pause.begin()
    looks = store.script.calls["hand_over"]
    await pause_once(lane, team)
    assert store.script.calls["hand_over"] == looks
    clock.now += account.RETRY_SECONDS[1]
    await pause_once(lane, team)
    await pause_once(lane, team)
    assert store.script.calls["hand_over"] == looks + 1
    store.script.refused.clear()
    clock.now += account.RETRY_SECONDS[1]
    await pause_once(lane, team)
    assert store.rows == []
    assert team.remembered.is_empty


async def test_during_a_pause_rows_that_another_process_has_do_not_make_a_busy_loop(
    make: Make, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    row_id = store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    store._locked.add(store._records[row_id].shard)
    team.pause.begin()
    looks = store.script.calls["hand_over"]
    assert team.remembered.seconds_to_next_write() == 0.0
    for _ in range(3):
        await pause_once(lane, team)
    assert store.script.calls["hand_over"] == looks + 1
    assert team.remembered.seconds_to_next_write() == remembered.WRITE_SECONDS


async def test_a_lock_of_a_stranger_leaves_time_for_other_shards(
    make: Make, store: ScriptedStore, team: Team, clock: Clock
) -> None:
    store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    team.remembered.writing_failed(40.0)
    clock.now += 39.0
    assert not team.remembered.rows_to_write()
    clock.now += 1.0
    assert team.remembered.rows_to_write()


async def test_a_try_that_has_waited_long_for_a_lock_is_not_followed_by_the_next_one(
    make: Make, store: ScriptedStore, team: Team, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    clock.now += remembered.LATE_SECONDS
    monkeypatch.setattr(lane_module, "time", clock)
    hand_over = store.hand_over

    def wait_in_vain(*arguments: Any, **options: Any) -> Any:
        clock.now += 40.0
        store.script.next_failures["hand_over"] = deque([Trouble("still locked")])
        return hand_over(*arguments, **options)

    monkeypatch.setattr(store, "hand_over", wait_in_vain)
    await fail(lane)
    clock.now += 39.0
    assert not team.remembered.rows_to_write()


async def pause_once(lane: Lane, team: Team) -> None:
    """Run one round of a pause, and end its waiting."""
    task = asyncio.create_task(lane.run_once())
    while not task.done():
        await asyncio.sleep(0)
        team.pause.wake()
    await task


async def test_an_outcome_that_no_hand_over_comes_to_is_written_beside_them(
    make: Make,
    destination: ScriptedDestination,
    store: ScriptedStore,
    team: Team,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row_id = store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    # As where its queue is paused, or the shard rests.
    monkeypatch.setattr(lane._rounds, "next", lambda: [Shard("orders", 0), Shard("orders", 1)])
    assert store._records[row_id].shard not in lane._rounds.next()
    clock.now += remembered.LATE_SECONDS - 0.1
    await run(lane)
    assert len(team.remembered) == 1, "other hand-overs come first"
    clock.now += 0.2
    await run(lane)
    assert team.remembered.is_empty
    assert store.rows == []
    assert destination.sent == [[row_id]]


async def test_during_an_outage_outcomes_are_written(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    row_id = store.publish(key="a")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make)
    await fail(lane)
    destination.script.failing["connect"] = Trouble("no destination")
    lane.start()
    await until(lambda: not store.rows)
    assert destination.sent == [[row_id]]


async def test_a_stop_tries_outcomes_until_the_database_answers(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    ids = [store.publish(key="a") for _ in range(3)]
    lane = quick(make, batch_size=1)
    store.script.failing["commit"] = Trouble("no database")
    lane.start()
    await until(lambda: store.script.calls["commit"])
    stop = asyncio.create_task(lane.stop(5.0))
    attempts = store.script.calls["commit"]
    await until(lambda: store.script.calls["commit"] > attempts + 2)
    assert not stop.done()
    store.script.failing.clear()
    await stop
    assert [row.id for row in store.rows] == ids[1:]
    assert destination.sent == [[ids[0]]]
    assert team.remembered.is_empty


async def test_a_stop_that_has_all_the_time_ends_although_the_database_never_comes_back(
    make: Make, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish(key="a")
    monkeypatch.setattr("faststream_outbox._engine.relaying.lane.DATABASE_SECONDS", 0.1)
    store.script.failing["commit"] = Trouble("no database")
    lane = quick(make)
    lane.start()
    await until(lambda: store.script.calls["commit"])
    async with asyncio.timeout(5):
        await lane.stop(None)


async def test_a_stop_tries_all_that_is_set_aside_just_once(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    bad = [store.publish(key="a") for _ in range(5)]
    store.script.refused.update(dict.fromkeys(bad, Trouble("a trigger says no")))
    lane = quick(make, batch_size=2)
    lane.start()
    await until(lambda: copies(destination).keys() == {*bad})
    await until(lambda: len(store.attempted) == 3)
    for row_id in bad[:4]:
        del store.script.refused[row_id]
    # It ends by itself, although one outcome is still refused.
    async with asyncio.timeout(5):
        await lane.stop(None)
    assert [row.id for row in store.rows] == bad[4:]
    assert copies(destination) == dict.fromkeys(bad, 1)


async def test_a_stop_with_all_outcomes_written_asks_for_nothing(
    make: Make, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    store.publish(key="a")
    lane = quick(make)
    lane.start()
    await until(lambda: not store.rows)
    lane.begin_stop()
    looks = store.script.calls["hand_over"]
    await lane.stop(5.0)
    assert store.script.calls["hand_over"] <= looks


@pytest.mark.parametrize("way", ["pause", "outage", "stop"])
async def test_an_outcome_is_written_though_its_row_stands_behind_many_others(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team, way: str
) -> None:
    first = [store.publish(key="a") for _ in range(9)]
    row_ids = [store.publish(key="a") for _ in range(5)]
    # Those before them are committed later.
    others = [store._records.pop(row_id) for row_id in first]
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    lane = quick(make, batch_size=5)
    await fail(lane)
    late = {record.row.id: record for record in others}
    store._records = {**late, **store._records}
    if way == "pause":
        team.pause.begin()
        await pause_once(lane, team)
    elif way == "outage":
        destination.script.failing["connect"] = Trouble("no destination")
        lane.start()
        await until(lambda: len(store.rows) == len(first))
    else:
        lane.start()
        lane.begin_stop()
        await lane.stop(5.0)
    assert [row.id for row in store.rows] == first
    assert destination.sent == [row_ids]
    assert team.remembered.is_empty


async def test_all_outcomes_are_written_though_rows_are_gone_or_fill_a_hand_over_with_their_bytes(
    make: Make, destination: ScriptedDestination, store: ScriptedStore, team: Team
) -> None:
    row_ids = [store.publish(key="a", payload=b"x" * 600) for _ in range(7)]
    lane = quick(make, batch_size=100)
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(lane)
    del store._records[row_ids[0]], store._records[row_ids[3]]
    lane._batch_size, lane._batch_bytes = 4, 1000
    team.pause.begin()
    await pause_once(lane, team)
    assert store.rows == []
    assert destination.sent == [row_ids]


async def test_a_stop_says_how_many_outcomes_it_gives_up(
    make: Make, store: ScriptedStore, team: Team, log: Lines
) -> None:
    row_ids = [store.publish(key="a") for _ in range(12)]
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    await fail(quick(make))
    team.remembered.give_up()
    [(level, line)] = [each for each in log.all if "gives up" in each[1]]
    assert level == logging.WARNING
    assert line.startswith("forwarder test: it has stopped, and gives up 12 outcomes")
    assert f"{row_ids[0]} in 'orders'" in line
    assert "and 2 more" in line
    assert team.remembered.is_empty
    team.remembered.give_up()
    assert sum("gives up" in line for _, line in log.all) == 1
