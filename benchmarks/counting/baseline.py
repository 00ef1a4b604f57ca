"""The counted work that is allowed, and what exceeds it."""

import json
from pathlib import Path

from benchmarks.counting.counters import ROUND_TRIPS, STATEMENTS, WAL_BYTES
from benchmarks.counting.work import HAND_OVER, HANDLER, PUBLISH, PUBLISH_BATCH, Work

FILE = Path(__file__).parents[1] / "baseline.json"
RENEW = "If the new figures are meant, write them down with `make bench-baseline` and commit benchmarks/baseline.json."

TOLERANCE = {PUBLISH: 1.02, PUBLISH_BATCH: 1.02, HAND_OVER: 1.15, HANDLER: 1.3}
"""By how much statements and round trips may be above. Loops that run for a while also look around from time to time,
and how many outcomes of handlers gather for one write hangs on how quickly the write before it came back."""

WAL_TOLERANCE = 1.05
"""The same for WAL, into which PostgreSQL itself writes a little from time to time."""

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
    return [
        f"{name}: {count:.4g} {what} per message, the baseline is {allowed[what]:.4g}"
        for what, count in found.items()
        if count > allowed[what] * (WAL_TOLERANCE if what == WAL_BYTES else TOLERANCE[name])
    ]
