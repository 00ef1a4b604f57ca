"""Counts the work and makes it the baseline: `make bench-baseline`."""

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.contest import OURS, Bench, Sizes
from benchmarks.counting import baseline, work
from benchmarks.report import number
from benchmarks.servers import Servers
from benchmarks.workloads.relay import backlog


async def count(servers: Servers) -> work.Work:
    """Do each work on a database of its own."""
    template = await backlog(Bench(servers=servers, sizes=Sizes()), OURS, 0)

    async def on_database(do: Callable[[str], Awaitable[dict[str, float]]]) -> dict[str, float]:
        with servers.database(template) as url:
            return await do(url)

    with servers.kafka.topic() as topic:
        return {
            work.PUBLISH: await on_database(work.publish),
            work.PUBLISH_BATCH: await on_database(work.publish_batch),
            work.HAND_OVER: await on_database(lambda url: work.hand_over(url, servers.kafka.bootstrap, topic)),
            work.HANDLER: await on_database(work.handle),
        }


def main() -> None:
    with Servers(durable=False) as servers:
        counted = asyncio.run(count(servers))
    for name, found in counted.items():
        print(f"{name}, per message: " + ", ".join(f"{number(count)} {what}" for what, count in found.items()))
    baseline.write(counted)


if __name__ == "__main__":
    main()
