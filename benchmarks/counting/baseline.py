"""The counted work that is allowed, and what exceeds it."""

import json
from pathlib import Path

from benchmarks.counting.counters import ROUND_TRIPS, STATEMENTS, WAL_BYTES
from benchmarks.counting.work import HANDLER, Work

FILE = Path(__file__).parents[1] / "baseline.json"
RENEW = "If the new figures are meant, write them down with `make bench-baseline` and commit benchmarks/baseline.json."

TOLERANCE = 1.05
"""Connections are opened, the rescuer looks around: a little is never the same twice."""

HANDLER_TOLERANCE = 1.3
"""How many outcomes gather for one write hangs on how quickly the write before it came back."""

DIGITS = {STATEMENTS: 4, ROUND_TRIPS: 4, WAL_BYTES: 0}


def read() -> Work:
    """Give the figures of the baseline file."""
    baseline: Work = json.loads(FILE.read_text(encoding="utf-8"))
    return baseline


def write(work: Work) -> None:
    """Make these figures the baseline."""
    rounded = {
        name: {what: round(count, DIGITS[what]) for what, count in found.items()} for name, found in work.items()
    }
    FILE.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def excesses(name: str, found: dict[str, float], allowed: dict[str, float]) -> list[str]:
    """Tell in words which figures of one work are above what is allowed."""
    tolerance = HANDLER_TOLERANCE if name == HANDLER else TOLERANCE
    return [
        f"{name}: {count:.4g} {what} per message, the baseline is {allowed[what]:.4g}"
        for what, count in found.items()
        if count > allowed[what] * tolerance
    ]
