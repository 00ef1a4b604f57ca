"""A relay to Redis in a process of its own; see the one to Kafka."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox._store.postgres.handing_over import PostgresHandOver
from faststream_outbox._store.postgres.positions import PostgresPositions
from faststream_outbox.forwarders.redis.exact.positions import LaneMarkers
from faststream_outbox.forwarders.redis.exact.sending import ExactSender
from integration.exactly_once.process import Crash

from .shop import make_redis_relay

POINTS: dict[str, tuple[Callable[[Crash, Any, str], None], Any, str]] = {
    "before a shard is begun": (Crash.before, PostgresPositions, "take_over"),
    "after a shard is begun": (Crash.after, PostgresPositions, "take_over"),
    "after the look": (Crash.after, LaneMarkers, "look"),
    "before messages are sent": (Crash.before, ExactSender, "_step"),
    "while messages are on their way": (Crash.amid, ExactSender, "_step"),
    "after messages are acknowledged": (Crash.after, ExactSender, "_step"),
    "before the outcomes are written": (Crash.before, PostgresHandOver, "settle"),
    "before the commit": (Crash.after, PostgresHandOver, "settle"),
    "after the commit": (Crash.behind, LaneMarkers, "written"),
}


async def main(options: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    if "crash" in options:
        point, times, signal = options.pop("crash")
        wrap, owner, name = POINTS[point]
        wrap(Crash(times, signal), owner, name)
    engine = create_async_engine(os.environ["DATABASE_URL"])
    broker, _ = make_redis_relay(engine, **options)
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
