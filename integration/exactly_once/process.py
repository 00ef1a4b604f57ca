"""A relay in a process of its own: `python -m integration.exactly_once.process OPTIONS`, with DATABASE_URL.

OPTIONS is a JSON object: bootstrap, topic, the forwarder's options, and `crash`: at which point, and at which visit,
the process sends itself which signal.
"""

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
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.exact.positions import LanePositions

from .shop import make_relay

FLIGHT_SECONDS = 0.002
"""After so long a batch that was sent may be on its way, or in the log, or answered."""


class Crash:
    """Lets the process send itself a signal when it comes to a point for the n-th time."""

    def __init__(self, times: int, signal: int) -> None:
        self._left = times
        self._signal = signal

    def _come(self) -> None:
        self._left -= 1
        if self._left == 0:
            print("crash", flush=True)
            os.kill(os.getpid(), self._signal)

    def before(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._come()
            return await original(*args, **kwargs)

        setattr(owner, name, wrapped)

    def amid(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            sending = asyncio.ensure_future(original(*args, **kwargs))
            await asyncio.sleep(FLIGHT_SECONDS)
            self._come()
            return await sending

        setattr(owner, name, wrapped)

    def after(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            answer = await original(*args, **kwargs)
            self._come()
            return answer

        setattr(owner, name, wrapped)

    def behind(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            self._come()

        setattr(owner, name, wrapped)


POINTS: dict[str, tuple[Callable[[Crash, Any, str], None], Any, str]] = {
    "before the take-over": (Crash.before, PostgresPositions, "take_over"),
    "after the take-over": (Crash.after, PostgresPositions, "take_over"),
    "after partitions are begun": (Crash.after, PostgresPositions, "open"),
    "after the look": (Crash.after, LanePositions, "look"),
    "before a batch is sent": (Crash.before, KafkaClient, "produce"),
    "while a batch is on its way": (Crash.amid, KafkaClient, "produce"),
    "after a batch is acknowledged": (Crash.after, KafkaClient, "produce"),
    "after a batch is read back": (Crash.after, Leaders, "read"),
    "before the outcomes are written": (Crash.before, PostgresHandOver, "settle"),
    "before the commit": (Crash.after, PostgresHandOver, "settle"),
    "after the commit": (Crash.behind, LanePositions, "written"),
}


async def main(options: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    if "crash" in options:
        point, times, signal = options.pop("crash")
        wrap, owner, name = POINTS[point]
        wrap(Crash(times, signal), owner, name)
    engine = create_async_engine(os.environ["DATABASE_URL"])
    broker, _ = make_relay(engine, **options)
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
