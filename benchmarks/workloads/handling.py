"""Local subscribers handle a backlog, at the defaults of both sides."""

from collections.abc import Sequence

from benchmarks.contest import DEFAULTS, LIMIT, OURS, Bench, CheckFailed, Figures, Goal, Workload
from benchmarks.processes import run_program
from benchmarks.workloads.relay import backlog, connection

RATE = "messages/s"
CPU = "µs of its processor time each"


def handling_workload(name: str, mode: str, title: str, *, contestants: Sequence[str], at_least: float) -> Workload:
    """Make the workload of one kind of subscriber."""

    async def run(bench: Bench, contestant: str) -> Figures:
        count = bench.sizes.backlog
        options = {"mode": mode, "count": count, "window": bench.sizes.window}
        with bench.servers.database(await backlog(bench, contestant, count)) as url:
            module = "benchmarks.limit.handle" if contestant == LIMIT else "benchmarks.programs.handling"
            said = await run_program(module, bench.python(contestant), database=url, **options)
            async with connection(url) as table:
                left = await table.fetchval("SELECT count(*) FROM outbox")
        if said["handled"] + left < count:
            raise CheckFailed(f"{said['handled']} messages were handled and {left} are left, of {count}")
        return {RATE: said["rate"], CPU: said["cpu"] * 1e6}

    return Workload(
        name=name,
        title=title,
        unit=RATE,
        contestants=contestants,
        run=run,
        goals=[Goal(what="times the other's rate", of=(OURS, RATE), to=(DEFAULTS, RATE), at_least=at_least)],
    )


WORKLOADS = [
    handling_workload(
        "subscriber", "plain", "Local subscriber that does nothing", contestants=[OURS, DEFAULTS], at_least=4
    ),
    handling_workload(
        "fastapi",
        "fastapi",
        "FastAPI subscriber, Depends(get_session), one INSERT",
        contestants=[OURS, LIMIT, DEFAULTS],
        at_least=2,
    ),
]
