"""Messages are published: one for each transaction, ten, a batch of 1,000; and by 64 publishers at once."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.contest import DEFAULTS, LIMIT, OURS, Bench, Figures, Goal, Workload
from benchmarks.processes import program, run_program
from benchmarks.workloads.relay import backlog

MICROSECONDS = "µs each"
CPU = "µs of its processor time each"
RATE = "messages/s"
MESSAGES = {"one": 1, "ten": 10, "batch": 1000}

PUBLISHERS = 64
PROCESSES = 2
COMMITS = "commits/s"
DURABLE_COMMITS = "commits/s, fsync=on"
NOTIFY = "notify (default)"
SILENT = "notify=False"


def publish_workload(mode: str, title: str, *, rate: float) -> Workload:
    """Make the workload of one way of publishing, with its goal against the other package."""
    messages = MESSAGES[mode]

    async def run(bench: Bench, contestant: str) -> Figures:
        python = bench.python(contestant)
        count = max(20, bench.sizes.publishes // messages)
        with bench.servers.database(await backlog(bench, contestant, 0)) as url:
            module = "benchmarks.limit.publish" if contestant == LIMIT else "benchmarks.programs.publishing"
            said = await run_program(module, python, database=url, mode=mode, messages=messages, count=count)
        seconds = said["seconds"]
        figures = {
            RATE: messages / seconds["publish"],
            MICROSECONDS: seconds["publish"] / messages * 1e6,
            CPU: said["cpu"]["publish"] / messages * 1e6,
        }
        for name in seconds.keys() - {"publish"}:
            figures[f"µs, {name}"] = seconds[name] / messages * 1e6
            figures[f"cpu µs, {name}"] = said["cpu"][name] / messages * 1e6
        return figures

    goals = [Goal(what="times the other's rate", of=(OURS, RATE), to=(DEFAULTS, RATE), at_least=rate)]
    if mode == "one":
        goals = [
            Goal(what=f"times {name}", of=(OURS, MICROSECONDS), to=(OURS, f"µs, {name}"), at_most=1.05)
            for name in ("by hand, text()", "by hand, insert()")
        ]
    if mode == "ten":
        staging = "µs, stage"
        goals += [
            Goal(what="of the other's time, staged", of=(OURS, staging), to=(DEFAULTS, MICROSECONDS), at_most=1 / 3),
            Goal(
                what="of 10 INSERTs by hand, staged",
                of=(OURS, staging),
                to=(OURS, "µs, by hand, text()"),
                at_most=1 / 3,
            ),
        ]
    # Many at once are no loop of INSERTs.
    contestants = [OURS, DEFAULTS] if mode == "batch" else [OURS, LIMIT, DEFAULTS]
    return Workload(name=f"publish-{mode}", title=title, unit=RATE, contestants=contestants, run=run, goals=goals)


async def run_notify(bench: Bench, contestant: str) -> Figures:
    """Let 64 publishers commit, with PostgreSQL as in this run, and with one that waits for the disk."""
    figures = {}
    template = await backlog(bench, OURS, 0)
    with bench.servers.database(template) as url:
        figures[COMMITS] = await commit_rate(bench, url, notify=contestant == NOTIFY)
    with bench.servers.durable_database() as url:
        await run_program("benchmarks.programs.fill", Path(sys.executable), database=url, count=0)
        figures[DURABLE_COMMITS] = await commit_rate(bench, url, notify=contestant == NOTIFY)
    return figures


async def commit_rate(bench: Bench, url: str, *, notify: bool) -> float:
    """Commits of all publishers together, in each second."""
    options = {
        "database": url,
        "tasks": PUBLISHERS // PROCESSES,
        "notify": notify,
        "seconds": bench.sizes.commits_seconds,
    }
    async with AsyncExitStack() as stack:
        programs = [
            await stack.enter_async_context(program("benchmarks.programs.committers", Path(sys.executable), **options))
            for _ in range(PROCESSES)
        ]
        for each in programs:
            await each.hear()
        said = await asyncio.gather(*(each.ask("go") for each in programs))
    return sum(each["rate"] for each in said)


WORKLOADS = [
    publish_workload("one", "Publish, one for each transaction", rate=1),
    publish_workload("ten", "Publish, 10 calls in one transaction", rate=2),
    publish_workload("batch", "publish_batch of 1,000", rate=1.5),
    Workload(
        name="notify",
        title="Commits of 64 publishers at once",
        unit=COMMITS,
        contestants=[NOTIFY, SILENT],
        run=run_notify,
        goals=[
            Goal(what=f"notify against notify=False, {name}", of=(NOTIFY, name), to=(SILENT, name), at_least=0.8)
            for name in (COMMITS, DURABLE_COMMITS)
        ],
    ),
]
