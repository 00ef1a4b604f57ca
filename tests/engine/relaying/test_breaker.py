"""When a destination counts as down, who tries it, and what the log hears of it."""

import asyncio
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from tenacity.wait import wait_fixed

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.relaying import breaker as breaker_module
from faststream_outbox._engine.relaying.breaker import PROBE_DELAY, Breaker, BreakerState
from tests.engine.fakes import Clock, Lines, Trouble

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
ERROR = "kafka: Trouble: down (retrying until it works)"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(breaker_module, "time", clock)
    return clock


@pytest.fixture
def breaker(log: Lines, clock: Clock) -> Breaker:
    return Breaker(Health("kafka", log), 2, wait_fixed(10))


def fail(breaker: Breaker, source: object = "shard") -> float:
    return breaker.note([source], answered=False, trouble=Trouble("down"))


def answer(breaker: Breaker, source: object = "shard", trouble: BaseException | None = None) -> float:
    return breaker.note([source], answered=True, trouble=trouble)


def open_up(breaker: Breaker) -> None:
    for _ in range(3):
        fail(breaker)
    assert breaker.state is OPEN


def lose_connections(breaker: Breaker) -> None:
    for lane in ("lane-0", "lane-1", "lane-0"):
        breaker.cannot_connect(lane, Trouble("down"))
    assert breaker.state is OPEN


async def test_it_opens_when_more_attempts_in_a_row_have_failed_than_there_are_lanes(breaker: Breaker) -> None:
    assert [fail(breaker), fail(breaker)] == [10.0, 10.0], "a lane that failed rests by itself"
    assert breaker.state is CLOSED
    assert fail(breaker) == 0.0
    assert breaker.state is OPEN


async def test_an_answer_in_between_keeps_it_closed(breaker: Breaker, log: Lines) -> None:
    for _ in range(10):
        fail(breaker, "one shard")
        fail(breaker, "another shard")
        answer(breaker, "a third shard")
        assert breaker.state is CLOSED
    assert [message for _, message in log.all] == [ERROR]


async def test_a_hand_over_that_went_through_in_part_is_an_answer(breaker: Breaker, log: Lines) -> None:
    for _ in range(10):
        assert answer(breaker, trouble=Trouble("down")) == 10.0
        assert breaker.state is CLOSED
    assert [message for _, message in log.all] == [ERROR]
    assert str(breaker.last_error) == "down"
    answer(breaker)
    assert breaker.last_error is None


async def test_nobody_passes_before_the_time_of_the_next_probe(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    waiting = asyncio.create_task(_turn(breaker))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    breaker.wake()
    assert await waiting is False, "woken, and to look again"
    clock.now += 10
    assert await _turn(breaker) is True


async def _turn(breaker: Breaker) -> bool:
    async with breaker.turn() as may_go:
        return may_go


async def test_one_probe_at_a_time(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 10
    async with breaker.turn() as may_go:
        assert may_go
        assert breaker.state is HALF_OPEN
        others = [asyncio.create_task(_turn(breaker)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(other.done() for other in others)
        answer(breaker)
    assert await asyncio.gather(*others) == [False] * 3
    assert [await _turn(breaker) for _ in range(3)] == [True] * 3
    assert breaker.state is CLOSED


async def test_a_probe_that_fails_makes_the_others_wait_on(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 10
    async with breaker.turn():
        assert fail(breaker) == 0.0
    assert breaker.state is OPEN
    waiting = asyncio.create_task(_turn(breaker))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    breaker.wake()
    await waiting


async def test_a_probe_without_a_result_leaves_the_next_one_to_others(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 10
    with pytest.raises(Trouble):
        async with breaker.turn():
            raise Trouble("no database")
    assert breaker.state is HALF_OPEN
    assert await _turn(breaker) is True


async def test_to_connect_is_not_enough(breaker: Breaker, clock: Clock, log: Lines) -> None:
    lose_connections(breaker)
    for _ in range(20):
        clock.now += 10
        async with breaker.turn() as may_go:
            assert may_go
            breaker.connected("lane-0")
            assert breaker.state is HALF_OPEN
            fail(breaker)
    assert [message for _, message in log.all] == [ERROR]


async def test_where_there_is_nothing_to_send_to_connect_is_enough(breaker: Breaker, clock: Clock, log: Lines) -> None:
    for _ in range(3):
        breaker.cannot_connect("lane-0", Trouble("down"))
    clock.now += 10
    async with breaker.turn():
        assert not breaker.was_reached
        breaker.connected("lane-0")
        breaker.idle(["a", "b"])
    assert breaker.state is CLOSED
    assert log.recoveries == ["kafka: works again"]
    assert breaker.was_reached


async def test_nothing_to_send_proves_nothing_of_shards_that_were_not_asked(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 10
    async with breaker.turn():
        breaker.idle(["another shard"])
    assert breaker.state is HALF_OPEN
    async with breaker.turn():
        breaker.idle(["another shard", "shard"])
    assert breaker.state is CLOSED


async def test_nothing_to_send_proves_nothing_where_another_lane_had_rows_in_hand(breaker: Breaker, log: Lines) -> None:
    answer(breaker, trouble=Trouble("down"))
    one, other = breaker.turn(), breaker.turn()
    await one.__aenter__()
    await other.__aenter__()
    breaker.idle(["shard"])
    await one.__aexit__(None, None, None)
    # It is alone now, but was not when it looked for rows.
    breaker.idle(["shard"])
    assert breaker.last_error is not None
    await other.__aexit__(None, None, None)
    async with breaker.turn():
        breaker.idle(["shard"])
    assert log.recoveries == ["kafka: works again"]


async def test_the_end_of_an_outage_is_told_once_when_all_that_failed_works(
    breaker: Breaker, clock: Clock, log: Lines
) -> None:
    fail(breaker, "another shard")
    fail(breaker, "another shard")
    fail(breaker, "shard")
    clock.now += 10
    async with breaker.turn():
        answer(breaker, "shard")
    assert breaker.state is CLOSED, "rows flow again"
    assert log.recoveries == []
    for _ in range(3):
        answer(breaker, "another shard")
        answer(breaker, "shard")
    assert log.recoveries == ["kafka: works again"]


async def test_an_answer_ends_the_outage_for_lanes_that_could_not_connect(
    breaker: Breaker, clock: Clock, log: Lines
) -> None:
    lose_connections(breaker)
    clock.now += 10
    async with breaker.turn():
        breaker.connected("lane-0")
        answer(breaker)
    assert log.recoveries == ["kafka: works again"]


async def test_a_lane_that_alone_cannot_connect_is_told_once(breaker: Breaker, log: Lines) -> None:
    for _ in range(10):
        assert breaker.cannot_connect("lane-1", Trouble("down")) == 10.0
        answer(breaker)
        assert breaker.state is CLOSED
    assert [message for _, message in log.all] == [ERROR]
    breaker.cannot_connect("lane-1", Trouble("down"))
    breaker.connected("lane-1")
    assert log.recoveries == [], "nobody has had an answer since"
    answer(breaker)
    assert log.recoveries == ["kafka: works again"]


async def test_a_lane_that_connects_when_others_have_an_answer_ends_the_outage(breaker: Breaker, log: Lines) -> None:
    breaker.cannot_connect("lane-1", Trouble("down"))
    answer(breaker)
    assert log.recoveries == []
    breaker.connected("lane-1")
    assert log.recoveries == ["kafka: works again"]


async def test_an_answer_that_comes_late_closes_it(breaker: Breaker) -> None:
    open_up(breaker)
    answer(breaker)
    assert breaker.state is CLOSED
    assert await _turn(breaker) is True


async def test_a_failure_that_comes_late_does_not_put_the_probe_off(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 9
    fail(breaker, "a shard that another lane had in hand")
    clock.now += 1
    assert await _turn(breaker) is True


def test_probes_grow_rarer_to_about_five_seconds(log: Lines, clock: Clock) -> None:
    breaker = Breaker(Health("kafka", log), 1, PROBE_DELAY)
    drawn = [[breaker._seconds(attempt) for _ in range(200)] for attempt in (1, 2, 5, 20, 5000)]
    for delays, longest in zip(drawn, (0.1, 0.2, 1.6, 5.0, 5.0), strict=True):
        assert min(delays) >= 0.05
        assert longest * 0.7 < max(delays) <= longest


def test_the_next_outage_begins_with_quick_probes(breaker: Breaker) -> None:
    open_up(breaker)
    breaker._probes = 12
    answer(breaker)
    open_up(breaker)
    assert breaker._probes == 1


async def test_that_it_is_connected_is_said_once(log: Lines) -> None:
    said = []
    breaker = Breaker(Health("kafka", log), 2, on_reached=lambda: said.append(True))
    breaker.cannot_connect("lane-0", Trouble("down"))
    assert not breaker.was_reached
    for lane in ("lane-0", "lane-1", "lane-0"):
        breaker.connected(lane)
    assert said == [True]
    assert breaker.was_reached


# ------------------------------------------------------------------------------------------------------- a part is down


def fail_partly(breaker: Breaker, source: object = "shard", *, answered: bool = False) -> float:
    return breaker.note([source], answered=answered, trouble=None, partly=Trouble("down"))


async def test_a_part_that_sees_to_itself_opens_nothing_and_lets_nobody_rest(breaker: Breaker, log: Lines) -> None:
    assert {fail_partly(breaker, number) for number in range(50)} == {0.0}
    assert breaker.state is CLOSED
    assert log.troubles == [ERROR]
    assert isinstance(breaker.last_error, Trouble)


async def test_a_part_that_is_down_is_not_over_by_what_others_answer(breaker: Breaker, log: Lines) -> None:
    fail_partly(breaker, "one shard")
    fail_partly(breaker, "another shard", answered=True)
    answer(breaker, "a third shard")
    assert log.troubles == [ERROR]
    answer(breaker, "one shard")
    assert breaker.last_error is not None
    answer(breaker, "another shard")
    assert breaker.last_error is None


async def test_a_destination_of_which_only_a_part_is_down_is_there(breaker: Breaker) -> None:
    open_up(breaker)
    fail_partly(breaker)
    assert breaker.state is CLOSED
    open_up(breaker)
    breaker.note(["shard"], answered=False, trouble=Trouble("down"), partly=Trouble("down"))
    assert breaker.state is OPEN


async def test_while_rows_wait_for_a_part_out_of_the_way_the_log_does_not_say_that_it_works_again(
    log: Lines, clock: Clock
) -> None:
    """The hand-overs behind them are all well. An outage of the whole ends all the same."""
    are_down = True
    breaker = Breaker(Health("kafka", log), 2, wait_fixed(10), are_parts_down=lambda: are_down)
    breaker.note(["shard"], answered=False, trouble=None, partly=Trouble("a part"))
    answer(breaker)
    breaker.idle(["shard"])
    assert log.recoveries == []
    assert isinstance(breaker.last_error, Trouble)
    open_up(breaker)
    breaker.idle(["shard"])
    assert breaker.state is CLOSED
    are_down = False
    answer(breaker)
    assert len(log.recoveries) == 1


@pytest.mark.parametrize("begins_first", [True, False])
async def test_a_probe_that_finds_nothing_beside_a_lane_that_holds_shards_is_no_recovery(
    breaker: Breaker, clock: Clock, log: Lines, *, begins_first: bool
) -> None:
    lose_connections(breaker)
    clock.now += 100.0
    with breaker.beside() if begins_first else nullcontext():
        async with breaker.turn() as may_go:
            assert may_go
            breaker.connected("lane-0")
            breaker.connected("lane-1")
            with nullcontext() if begins_first else breaker.beside():
                breaker.idle(["shard"])
    assert breaker.state is not CLOSED
    async with breaker.turn():
        breaker.idle(["shard"])
    assert breaker.state is CLOSED
