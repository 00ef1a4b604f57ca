"""A relay in a process of its own: `python -m integration.relay`, told by a `RelayPlan` what to do.

It prints "ready" and its log, on SIGUSR1 how many tasks it has, and stops cleanly on SIGTERM.
"""

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_dlq_table, make_outbox_table
from faststream_outbox.annotations import OutboxMessage
from integration.destinations import box_class
from integration.faults.crash_points import crash_at
from integration.faults.processes import ChildProcess, run_python

if TYPE_CHECKING:
    from integration.destinations.base import Box

ENVIRONMENT = "OUTBOX_RELAY_PLAN"
WORKERS = 4
"""Of a handler."""
LOG = "LOG"
"""What each log record's first line begins with."""


@dataclass(frozen=True, kw_only=True)
class RelayPlan:
    """What a relay carries, and how it dies.

    Attributes:
        kind, url, name: the destination: its kind, its server and its name there, as `Box.publisher_at` takes them.
        publisher_options: of the destination's FastStream broker.
        pooled: whether a pooler in transaction mode stands before the database.
        options: of the forwarder.
        broker_options: of the broker; they must fit into JSON.
        listen_url: a database URL to listen on beside the first.
        dead_letters: whether there is a dead-letter table.
        lease: instead of a forwarder, a handler with leases of so many seconds that writes to a Redis stream.
        crash_point, crash_number: see `crash_at`.
    """

    database_url: str
    kind: str
    url: str
    name: str
    publisher_options: Mapping[str, Any] | None = None
    queues: tuple[str, ...] = ("orders",)
    pooled: bool = False
    options: Mapping[str, Any] | None = None
    broker_options: Mapping[str, Any] | None = None
    listen_url: str | None = None
    dead_letters: bool = False
    lease: float | None = None
    crash_point: str | None = None
    crash_number: int = 1

    @classmethod
    def to(cls, box: "Box", *, url: str | None = None, **fields: Any) -> Self:
        """Make a plan that carries to a box: at its own URL, or at another, as that of its proxy."""
        return cls(kind=box.kind, url=url or box.url, name=box.name, **fields)

    def publisher(self) -> Any:
        return box_class(self.kind).publisher_at(self.url, self.name, **(self.publisher_options or {}))


@asynccontextmanager
async def running_relay(
    plan: RelayPlan, *, env: Mapping[str, str] | None = None, wait: bool = True
) -> AsyncIterator[ChildProcess]:
    """Run a relay; `wait` until it is ready. Killed on leaving."""
    environment = {ENVIRONMENT: json.dumps(asdict(plan)), **(env or {})}
    ready = "ready" if wait else None
    async with run_python("-m", __name__, env=environment, ready=ready, timeout=60) as child:
        yield child


def pooled_connect_args() -> dict[str, Any]:
    """What SQLAlchemy asks of asyncpg behind PgBouncer: nothing prepared is kept, and no name is used twice."""
    return {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
    }


def log_records(child: ChildProcess) -> list[str]:
    """The first lines of all records that the relay has logged."""
    return [line for line in child.lines if line.startswith(LOG)]


def _add_handler(broker: OutboxBroker, plan: RelayPlan, lease: float) -> None:
    from faststream.redis.parser import BinaryMessageFormatV1
    from redis.asyncio import Redis

    client = Redis.from_url(plan.url)

    @broker.subscriber(*plan.queues, max_workers=WORKERS, lease_ttl_seconds=lease)
    async def handle(message: OutboxMessage) -> None:
        headers = {"idempotency-key": message.idempotency_key}
        envelope = await BinaryMessageFormatV1.encode(
            message=message.row.payload, reply_to=None, headers=headers, correlation_id="none"
        )
        await client.xadd(plan.name, {"__data__": envelope})


async def main() -> None:
    logging.basicConfig(level=logging.WARNING, format=f"{LOG} %(levelname)s %(name)s %(message)s")
    log = logging.getLogger("relay")
    log.setLevel(logging.INFO)
    plan = RelayPlan(**json.loads(os.environ[ENVIRONMENT]))
    if plan.crash_point is not None:
        crash_at(plan.crash_point, plan.crash_number)
    engine = create_async_engine(plan.database_url, connect_args=pooled_connect_args() if plan.pooled else {})
    metadata = MetaData()
    broker = OutboxBroker(
        engine,
        outbox_table=make_outbox_table(metadata),
        dlq_table=make_dlq_table(metadata) if plan.dead_letters else None,
        logger=log,
        listen_engine=None if plan.listen_url is None else create_async_engine(plan.listen_url),
        **(plan.broker_options or {}),
    )
    if plan.lease is None:
        broker.forwarder(list(plan.queues), to=plan.publisher(), **(plan.options or {}))
    else:
        _add_handler(broker, plan, plan.lease)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: print("tasks", len(asyncio.all_tasks()), flush=True))
    await broker.start()
    print("clock", time.time())
    print("ready", flush=True)
    await stop.wait()
    await broker.stop()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
