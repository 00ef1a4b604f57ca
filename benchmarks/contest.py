"""Workloads, who takes part in them, and rounds in which they take turns."""

import statistics
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.environment import opponent_python
from benchmarks.servers import Servers

OURS = "ours"
EXACT = "ours, exactly once"
LIMIT = "limit"
BEST = "other, best settings"
DEFAULTS = "other, defaults"

Figures = dict[str, float]
"""What one run of one contestant gave: numbers under names."""


class CheckFailed(Exception):
    """What came out is wrong: messages lost, or a key's order broken. The speed does not matter then."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the medians must show: one figure divided by another, or one figure alone.

    Args:
        what: In words, for the table.
        of: Contestant and figure.
        to: Contestant and figure to divide by; None: nothing.
        at_least: The least that is good, or
        at_most: the most that is good.
    """

    what: str
    of: tuple[str, str]
    to: tuple[str, str] | None = None
    at_least: float | None = None
    at_most: float | None = None

    def value(self, medians: dict[str, Figures]) -> float | None:
        """Give the figure or the ratio; None where something was not measured."""
        found = [medians.get(contestant, {}).get(name) for contestant, name in filter(None, (self.of, self.to))]
        if None in found:
            return None
        first, *rest = [number for number in found if number is not None]
        return first / rest[0] if rest and rest[0] else first

    def is_met(self, value: float) -> bool:
        """Tell whether a value is good."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One kind of work.

    Args:
        name: For ``--only``.
        title: For the table.
        unit: Of its figures.
        contestants: Who takes part.
        run: Lets one contestant do it once.
        goals: What the medians must show.
        once: One round is enough: it repeats within itself, or takes long.
    """

    name: str
    title: str
    unit: str
    contestants: Sequence[str]
    run: Callable[["Bench", str], Awaitable[Figures]]
    goals: Sequence[Goal] = ()
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    backlog: int = 50_000
    window: float = 8.0
    """Seconds after which a contestant that has not finished is stopped; its rate is that of the window."""
    publishes: int = 2_000
    latency_seconds: float = 8.0
    million: int = 1_000_000
    repetitions: int = 30
    commits_seconds: float = 4.0


QUICK = Sizes(
    backlog=10_000,
    window=2.0,
    publishes=300,
    latency_seconds=2.0,
    million=100_000,
    repetitions=10,
    commits_seconds=1.0,
)


@dataclass(kw_only=True)
class Bench:
    """What workloads are given."""

    servers: Servers
    sizes: Sizes
    backlogs: dict[tuple[str, int], str] = field(default_factory=dict)

    @cached_property
    def opponent(self) -> Path:
        """The interpreter of the other package's environment."""
        return opponent_python()

    def python(self, contestant: str) -> Path:
        """Give the interpreter that a contestant's programs run in."""
        return self.opponent if contestant in {BEST, DEFAULTS} else Path(sys.executable)


@dataclass(kw_only=True)
class Result:
    """What one workload gave."""

    workload: Workload
    rounds: dict[str, list[Figures]]
    problems: list[str]

    @property
    def medians(self) -> dict[str, Figures]:
        """The median of each figure of each contestant."""
        return {
            contestant: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            for contestant, runs in self.rounds.items()
            if runs
        }

    def as_json(self) -> dict[str, Any]:
        """Give everything that was measured."""
        medians = self.medians
        return {
            "title": self.workload.title,
            "unit": self.workload.unit,
            "rounds": self.rounds,
            "medians": medians,
            "goals": [asdict(goal) | self._judged(goal, medians) for goal in self.workload.goals],
            "problems": self.problems,
        }

    def _judged(self, goal: Goal, medians: dict[str, Figures]) -> dict[str, Any]:
        value = goal.value(medians)
        return {"value": value, "met": None if value is None else goal.is_met(value)}


async def hold(bench: Bench, workload: Workload, rounds: int) -> Result:
    """Let the contestants take turns, in another order each round."""
    result = Result(workload=workload, rounds={name: [] for name in workload.contestants}, problems=[])
    for number in range(1 if workload.once else rounds):
        turn = number % len(workload.contestants)
        for contestant in [*workload.contestants[turn:], *workload.contestants[:turn]]:
            began = time.monotonic()
            try:
                figures = await workload.run(bench, contestant)
            except Exception as error:  # noqa: BLE001 - one that fails must not cost the others their turn
                result.problems.append(f"{contestant}, round {number + 1}: {type(error).__name__}: {error}")
                traceback.print_exc()
                continue
            result.rounds[contestant].append(figures)
            shown = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
            tell(f"  {workload.name} {number + 1}: {contestant}: {shown}  ({time.monotonic() - began:.1f} s)")
    return result


def tell(line: str) -> None:
    """Show progress, beside the report."""
    print(line, file=sys.stderr, flush=True)
