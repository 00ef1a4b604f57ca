"""Where the microseconds of the hot paths go: `make bench ARGS="--profile"`.

Each path runs once with a sampler inside (see programs/sampling.py). A package's share of the samples, times the
processor time that the program used, is what it cost for each message.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.contest import OURS, Bench, tell
from benchmarks.destinations import DESTINATIONS
from benchmarks.processes import program, run_program
from benchmarks.report import markdown
from benchmarks.workloads.relay import MODULES, backlog, connection, measure, stop

PARTS = 10
FUNCTIONS = 10

HEAD = """\
# Profiles

Where the processor time of our own process goes, on each hot path; made by `make bench ARGS="--profile"`. The server's
time is not in it. A function's time includes that of C code it calls, and not that of Python functions."""

Profile = dict[str, Any]


async def relay(bench: Bench, kind: str) -> tuple[Profile, int]:
    """Profile the relay to one kind of destination."""
    count = bench.sizes.backlog
    with bench.servers.database(await backlog(bench, OURS, count)) as url:
        async with (
            DESTINATIONS[kind](bench.servers) as destination,
            connection(url) as table,
            program(
                MODULES[OURS],
                bench.python(OURS),
                database=url,
                kind=kind,
                address=destination.address,
                name=destination.name,
                profile=True,
            ) as running,
        ):
            await running.hear()
            await measure([running], destination, table, count, window=120)
            [said] = await stop([running])
    return said["profile"], count


async def publish(bench: Bench, mode: str, messages: int) -> tuple[Profile, int]:
    """Profile one way of publishing."""
    with bench.servers.database(await backlog(bench, OURS, 0)) as url:
        said = await run_program(
            "benchmarks.programs.publishing",
            bench.python(OURS),
            database=url,
            mode=mode,
            count=max(100, bench.sizes.publishes // messages),
            profile=True,
        )
    return said["profile"], said["transactions"] * messages


async def handle(bench: Bench, mode: str) -> tuple[Profile, int]:
    """Profile a local subscriber."""
    count = bench.sizes.backlog
    with bench.servers.database(await backlog(bench, OURS, count)) as url:
        options = {"mode": mode, "count": count, "window": bench.sizes.window}
        said = await run_program(
            "benchmarks.programs.handling", bench.python(OURS), database=url, profile=True, **options
        )
    return said["profile"], said["handled"]


PATHS: dict[str, Callable[[Bench], Awaitable[tuple[Profile, int]]]] = {
    "Relay to Kafka": lambda bench: relay(bench, "kafka"),
    "Relay to a Redis stream": lambda bench: relay(bench, "redis"),
    "Relay to RabbitMQ": lambda bench: relay(bench, "rabbit"),
    "Publish, one for each transaction": lambda bench: publish(bench, "one", 1),
    "Publish, 10 calls in one transaction": lambda bench: publish(bench, "ten", 10),
    "publish_batch of 1,000": lambda bench: publish(bench, "batch", 1000),
    "Local subscriber that does nothing": lambda bench: handle(bench, "plain"),
    "FastAPI subscriber, one INSERT": lambda bench: handle(bench, "fastapi"),
}


async def profiles(bench: Bench) -> str:
    """Run every hot path once; returns a page."""
    sections = [HEAD]
    for title, run in PATHS.items():
        tell(title)
        sections.append(section(title, *await run(bench)))
    return "\n\n".join(sections)


def section(title: str, profile: Profile, messages: int) -> str:
    """Condense a profile to tables of packages and functions, in microseconds for each message."""
    each = profile["seconds"] / messages * 1e6
    parts: Counter[str] = Counter()
    for file, _, share in profile["shares"]:
        parts[_part(file)] += share
    by_part = [[part, f"{share * each:.1f}", f"{share:.0%}"] for part, share in parts.most_common(PARTS)]
    by_function = [
        [f"`{file}` {function.replace('<locals>.', '')}", f"{share * each:.1f}"]
        for file, function, share in profile["shares"][:FUNCTIONS]
    ]
    head = f"{messages:,} messages, {profile['samples']:,} samples, {each:.1f} µs of processor time for each message"
    return "\n".join([
        f"## {title}",
        "",
        head,
        "",
        *markdown(["part", "µs", "share"], by_part),
        "",
        *markdown(["function, without those it calls", "µs"], by_function),
    ])  # fmt: skip


def _part(file: str) -> str:
    """Name the part of a program that a file belongs to."""
    package, _, rest = file.partition("/")
    if package == "faststream_outbox":
        return f"{package}/{rest.rsplit('/', 1)[0]}" if "/" in rest else package
    if package == "python":
        return f"Python's {rest.split('/')[0].removesuffix('.py')}"
    if package == "generated":
        return "making dataclasses and named tuples"
    return package
