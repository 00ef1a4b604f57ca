"""Measure claims and hand-overs while a snapshot is held, with these sources and beside them with those of a commit.

Both work at the same time, on two databases of one PostgreSQL, so that the machine's other work is the same for both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from benchmarks.servers import Servers

PROGRAM = Path(__file__).with_name("taking.py")
SOURCES = Path("src")


def begin(sources: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(sources.resolve())}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def describe(takes: list[float]) -> str:
    cuts = statistics.quantiles(takes, n=1000)
    figures = {"p50": cuts[499], "p99": cuts[989], "p99.9": cuts[998], "longest": max(takes)}
    return f"{len(takes)} times, " + ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.snapshots", description=__doc__)
    parser.add_argument("before", help="the commit to measure beside these sources")
    parser.add_argument("--rate", type=float, default=20.0, help="rows a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each measurement (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Servers(durable=False) as servers:
        archive = f"{folder}/before.tar"
        command = ["git", "archive", "--format", "tar", "--output", archive, arguments.before, SOURCES.name]
        subprocess.run(command, check=True)
        with tarfile.open(archive) as files:
            files.extractall(folder, filter="data")
        for consumer in ("forwarder", "subscriber"):
            with servers.database() as first, servers.database() as second:
                common = (servers.redis.url, consumer, str(arguments.rate), str(arguments.seconds))
                running = {
                    "before": begin(Path(folder) / "src", first, *common),
                    "now": begin(SOURCES, second, *common),
                }
                for name, program in running.items():
                    output, _ = program.communicate()
                    print(f"{consumer}, {name}: {describe(json.loads(output))}", flush=True)


if __name__ == "__main__":
    main()
