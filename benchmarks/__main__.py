"""Runs the benchmarks: `make bench`, or `make bench ARGS="--only kafka --rounds 3 --quick"`."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contest import QUICK, Bench, Result, Sizes, Workload, hold, tell
from benchmarks.machine import describe
from benchmarks.plots import draw
from benchmarks.profiles import profiles
from benchmarks.report import table
from benchmarks.servers import Servers
from benchmarks.tuning import tune
from benchmarks.workloads import connections, flatness, handling, latency, many, publishing, relay, scaling

ALL: Sequence[Workload] = [
    workload
    for kind in (relay, publishing, handling, latency, connections, many, flatness, scaling)
    for workload in kind.WORKLOADS
]
RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    names = ", ".join(workload.name for workload in ALL)
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"workloads, separated by commas; all: {names}")
    parser.add_argument("--rounds", type=int, help="turns of each contestant; default 3, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything work? (3 minutes)")
    parser.add_argument("--durable", action="store_true", help="let PostgreSQL wait for the disk (fsync=on)")
    parser.add_argument("--json", type=Path, default=RESULTS / "results.json", help="where to write all figures")
    parser.add_argument("--profile", action="store_true", help="instead: where the microseconds of our hot paths go")
    parser.add_argument("--tune", metavar="KIND", help="instead: look for the other's best settings to relay to KIND")
    return parser.parse_args()


async def run(bench: Bench, workloads: Sequence[Workload], rounds: int) -> list[Result]:
    """Hold one workload after the other."""
    results = []
    for workload in workloads:
        tell(f"{workload.title}")
        results.append(await hold(bench, workload, rounds))
    return results


def main() -> int:
    """Measure, report, and tell whether everything could be measured."""
    options = arguments()
    wanted = set(options.only.split(",")) if options.only else {workload.name for workload in ALL}
    if unknown := wanted - {workload.name for workload in ALL}:
        sys.exit(f"no such workload: {', '.join(sorted(unknown))}")
    chosen = [workload for workload in ALL if workload.name in wanted]
    rounds = options.rounds or (1 if options.quick else 3)
    began = time.monotonic()
    with Servers(durable=options.durable) as servers:
        machine = describe(servers)
        bench = Bench(servers=servers, sizes=QUICK if options.quick else Sizes())
        if options.tune:
            print(asyncio.run(tune(bench, options.tune)))
            return 0
        if options.profile:
            print(asyncio.run(profiles(bench)))
            return 0
        results = asyncio.run(run(bench, chosen, rounds))
    machine["took"] = f"{time.monotonic() - began:.0f} s, {rounds} rounds"
    print(table(machine, results))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine, "workloads": {result.workload.name: result.as_json() for result in results}}
    options.json.write_text(json.dumps(written, indent=1) + "\n")
    plots = draw(results, options.json.parent)
    tell(f"all figures: {options.json}; plots: {', '.join(plot.name for plot in plots)}")
    return 1 if any(result.problems for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
