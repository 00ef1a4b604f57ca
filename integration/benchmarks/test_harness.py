"""The harness finds out what is wrong, and lets our side and the limit run."""

from typing import Any

import pytest

from benchmarks.contest import LIMIT, OURS, Bench, CheckFailed, Goal, Result, Sizes, Workload, hold
from benchmarks.messages import BODY_BYTES, as_json, body_of, key_of
from benchmarks.plots import draw
from benchmarks.report import table
from benchmarks.servers import Servers
from benchmarks.workloads.relay import RATE, check, run_relay

COUNT = 1000


class Arrived:
    kind = address = name = ""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    async def count(self) -> int:
        return len(self._numbers)

    async def bodies(self) -> list[dict[str, Any]]:
        return [body_of(number) for number in self._numbers]


class Left:
    def __init__(self, rows: int) -> None:
        self._rows = rows

    async def fetchval(self, _query: str) -> int:
        return self._rows


@pytest.mark.parametrize(
    ("arrived", "left", "problem"),
    [
        ([0, 1], 0, "2 messages arrived and 0 are left, of 3"),
        ([0, 1, 2, 2], 0, "4 messages arrived, 3 different ones"),
        ([0, 1, 2], 1, "3 messages arrived, 3 different ones; 1 are left"),
        ([0, 1001, 1], 0, "1 keys out of order, customer-0"),
    ],
)
async def test_loss_repeats_and_disorder_are_found(arrived: list[int], left: int, problem: str) -> None:
    assert key_of(1) == key_of(1001)
    with pytest.raises(CheckFailed, match=problem):
        await check(Arrived(*arrived), Left(left), 3, keeps_order=True)


async def test_what_is_left_or_has_no_key_may_be_anywhere() -> None:
    assert await check(Arrived(2, 0, 1), Left(2), 5, keeps_order=True) == 3


def test_bodies_have_their_size() -> None:
    assert {len(as_json(body_of(number))) for number in (0, 1, 999, 49_999, 999_999)} == {BODY_BYTES}


async def test_a_failure_is_a_problem_and_costs_nobody_else_the_turn(capsys: pytest.CaptureFixture[str]) -> None:
    async def run(_bench: Any, contestant: str) -> dict[str, float]:
        if contestant == LIMIT:
            raise CheckFailed("lost")
        return {RATE: 100.0}

    goals = [
        Goal(what="enough", of=(OURS, RATE), at_least=100),
        Goal(what="too many", of=(OURS, RATE), at_most=99),
        Goal(what="of the limit", of=(OURS, RATE), to=(LIMIT, RATE), at_least=0.6),
    ]
    workload = Workload(name="w", title="W", unit=RATE, contestants=[OURS, LIMIT], run=run, goals=goals)
    bench: Any = None
    result = await hold(bench, workload, rounds=2)
    assert result.problems == ["limit, round 1: CheckFailed: lost", "limit, round 2: CheckFailed: lost"]
    assert [goal["met"] for goal in result.as_json()["goals"]] == [True, False, None]
    assert "PROBLEM: limit, round 1" in table({}, [result])


async def test_our_side_and_the_limit_carry_everything(tmp_path: Any) -> None:
    with Servers(durable=False) as servers:
        bench = Bench(servers=servers, sizes=Sizes(backlog=COUNT, window=30))

        async def run(bench: Bench, contestant: str) -> dict[str, float]:
            return await run_relay(bench, contestant, "redis")

        workload = Workload(name="redis", title="Redis", unit=RATE, contestants=[OURS, LIMIT], run=run)
        result: Result = await hold(bench, workload, rounds=1)
    assert result.problems == []
    assert min(figures[RATE] for figures in result.medians.values()) > 0
    [plot] = draw([result], tmp_path)
    assert plot.read_text().count("<rect") == 3
