"""Writes messages with asyncpg and nothing else, one transaction after the other on one connection."""

import json
import statistics
import time
import uuid
from itertools import count
from typing import Any

from benchmarks.limit.database import CHANNEL, connect
from benchmarks.messages import HEADERS, QUEUE, as_json, body_of, key_of
from benchmarks.programs.publishing import BLOCKS
from benchmarks.programs.talk import Talk, cpu_seconds, run

INSERT = """
    INSERT INTO outbox (queue, key, idempotency_key, payload, headers) VALUES ($1, $2, $3, $4, $5::jsonb)
    RETURNING id, pg_notify($6, $1)
"""


def values(number: int) -> tuple[Any, ...]:
    """Give what is bound, made as whoever publishes by hand would make it."""
    headers = HEADERS | {"content-type": "application/json", "correlation_id": str(uuid.uuid4())}
    return QUEUE, key_of(number), str(uuid.uuid4()), as_json(body_of(number)), json.dumps(headers), CHANNEL


async def main(talk: Talk) -> None:
    options = talk.options
    connection = await connect(options["database"])
    numbers = count()
    size = max(1, options["count"] // BLOCKS)
    times, cpu = [], []
    # The first block warms up.
    for _ in range(BLOCKS + 1):
        began, used = time.perf_counter(), cpu_seconds()
        for _ in range(size):
            async with connection.transaction():
                for _ in range(options["messages"]):
                    await connection.fetchval(INSERT, *values(next(numbers)))
        times.append((time.perf_counter() - began) / size)
        cpu.append((cpu_seconds() - used) / size)
    await connection.close()
    talk.say(seconds={"publish": statistics.median(times[1:])}, cpu={"publish": statistics.median(cpu[1:])})


if __name__ == "__main__":
    run(main)
