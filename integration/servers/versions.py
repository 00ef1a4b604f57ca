"""Which versions a run of the tests was made with: told at its end, and written down for the table of the docs.

`OUTBOX_RUN` names the run, and `OUTBOX_VERSIONS` a file to which it appends a line. To make the table of such lines,
and to put it into the page:

    python -m integration.servers.versions build/versions.jsonl
    python -m integration.servers.versions docs/inside/versions.jsonl --write
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed
from pathlib import Path

RUN = "OUTBOX_RUN"
FILE = "OUTBOX_VERSIONS"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- versions: begin -->\n", "<!-- versions: end -->\n"

SERVERS = ("PostgreSQL", "Kafka", "RabbitMQ", "Redis", "Valkey", "NATS", "mosquitto", "PgBouncer")
PACKAGES = {"FastStream": "faststream", "SQLAlchemy": "sqlalchemy", "FastAPI": "fastapi", "asyncpg": "asyncpg"}
ROWS = (*SERVERS, "Python", *PACKAGES)

_seen: dict[str, set[str]] = {}


@dataclass(frozen=True, kw_only=True)
class TestedRun:
    """One run of pytest.

    Attributes:
        run: what it is called; runs of one name share a column of the table.
        day: on which it ended, as 2026-12-31.
        passed: how many tests.
        versions: those of each server and package.
    """

    __test__ = False

    run: str
    day: str
    passed: int
    versions: dict[str, list[str]]


def note(name: str, version: str) -> None:
    """Remember that a server of this version was started."""
    assert name in SERVERS, name
    _seen.setdefault(name, set()).add(version)


def this_run(passed: int) -> TestedRun:
    """What the process has seen until now."""
    here = {"Python": {platform.python_version()}} | {name: {installed(PACKAGES[name])} for name in PACKAGES}
    versions = {name: sorted(each) for name, each in (_seen | here).items()}
    return TestedRun(
        run=os.environ.get(RUN, "these tests"), day=time.strftime("%Y-%m-%d"), passed=passed, versions=versions
    )


def write_down(run: TestedRun) -> list[TestedRun]:
    """Append the run to the file that the environment names; returns all runs in that file, or this one."""
    if not (file := os.environ.get(FILE)):
        return [run]
    with Path(file).open("a", encoding="utf-8") as runs:
        runs.write(json.dumps(asdict(run)) + "\n")
    return read(Path(file).read_text(encoding="utf-8").splitlines())


def read(lines: Iterable[str]) -> list[TestedRun]:
    """The runs that stand in such a file."""
    return [TestedRun(**json.loads(line)) for line in lines]


def table(runs: Iterable[TestedRun]) -> str:
    """The Markdown table: a column for each name of a run, in the order of the lines."""
    columns: dict[str, list[TestedRun]] = {}
    for run in runs:
        columns.setdefault(run.run, []).append(run)
    cells = [("", *columns), ("---",) * (len(columns) + 1)]
    cells += [(name, *(_versions(name, column) for column in columns.values())) for name in ROWS]
    cells.append(("tests passed", *(" + ".join(f"{run.passed:,}" for run in column) for column in columns.values())))
    cells.append(("day", *(", ".join(sorted({run.day for run in column})) for column in columns.values())))
    return "".join("| " + " | ".join(row) + " |\n" for row in cells if any(row[1:]))


def _versions(name: str, runs: list[TestedRun]) -> str:
    return ", ".join(dict.fromkeys(version for run in runs for version in run.versions.get(name, ())))


def page_with(text: str, its_table: str) -> str:
    """The page's text with another table between the two marks."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}{its_table}{END}{rest.split(END)[1]}"


def main(file: str, *options: str) -> None:
    its_table = table(read(Path(file).read_text(encoding="utf-8").splitlines()))
    if "--write" in options:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), its_table), encoding="utf-8")
    else:
        print(its_table, end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
