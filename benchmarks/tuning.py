"""Looks for the other package's best settings: `make bench ARGS="--tune"`. They stand in opponent/settings.py."""

import itertools
from collections.abc import Iterator
from typing import Any

from benchmarks.contest import BEST, Bench, tell
from benchmarks.report import markdown, number
from benchmarks.workloads.relay import CPU, RATE, run_relay

GRID: dict[str, list[Any]] = {
    "max_workers": [8, 32, 64],
    "fetch_batch_size": [100, 500],
    "terminal_flush_batch_size": [1, 100, 500],
}
INTERVALS = {"min_fetch_interval": 0.01, "max_fetch_interval": 0.05}


def candidates() -> Iterator[dict[str, Any]]:
    """Give every combination."""
    for values in itertools.product(*GRID.values()):
        yield dict(zip(GRID, values, strict=True)) | INTERVALS


async def tune(bench: Bench, kind: str) -> str:
    """Relay with each combination once; returns a table, the fastest first."""
    rows = []
    for settings in candidates():
        figures = await run_relay(bench, BEST, kind, settings=settings)
        rows.append((figures[RATE], figures[CPU], settings))
        tell(f"  {number(figures[RATE])} {RATE}, {number(figures[CPU])} {CPU}: {settings}")
    rows.sort(key=lambda row: row[0], reverse=True)
    table = [[number(rate), number(cpu), *(str(settings[name]) for name in GRID)] for rate, cpu, settings in rows]
    return "\n".join(markdown([RATE, CPU, *GRID], table))
