"""Publishes messages, one transaction after the other, with whichever package is installed.

Ours takes turns with INSERTs written by hand, in blocks, so that both meet the same machine.
"""

import json
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

from sqlalchemy import MetaData, Table, func, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.messages import HEADERS, QUEUE, as_json, body_of, key_of
from benchmarks.programs.fill import Outgoing, messages
from benchmarks.programs.sampling import Sampler
from benchmarks.programs.talk import Talk, cpu_seconds, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table

Publish = Callable[[AsyncSession], Awaitable[Any]]
BLOCKS = 20

INSERT = text("""
    INSERT INTO outbox (queue, key, idempotency_key, payload, headers)
    VALUES (:queue, :key, :idempotency_key, :payload, CAST(:headers AS jsonb))
    RETURNING id, pg_notify(:channel, :queue)
""")


def with_broker(broker: OutboxBroker, mode: str, numbers: Iterator[int]) -> Publish:
    """Give what one transaction does."""

    async def one(session: AsyncSession) -> None:
        number = next(numbers)
        key = {"key": key_of(number)} if Outgoing else {}
        await broker.publish(body_of(number), queue=QUEUE, session=session, headers=HEADERS, **key)

    async def ten(session: AsyncSession) -> None:
        for _ in range(10):
            await one(session)

    async def batch(session: AsyncSession) -> None:
        await broker.publish_batch(
            *messages([next(numbers) for _ in range(1000)]), queue=QUEUE, session=session, headers=HEADERS
        )

    return {"one": one, "ten": ten, "batch": batch}[mode]


def by_staging(broker: OutboxBroker, numbers: Iterator[int]) -> Publish:
    """Return a transaction that stages ten messages, which its commit writes."""

    async def ten(session: AsyncSession) -> None:
        for number in [next(numbers) for _ in range(10)]:
            broker.stage(body_of(number), queue=QUEUE, session=session, headers=HEADERS, key=key_of(number))

    return ten


def ten_times(publish: Publish) -> Publish:
    """Return a transaction that publishes ten times."""

    async def ten(session: AsyncSession) -> None:
        for _ in range(10):
            await publish(session)

    return ten


def by_hand(table: Table, numbers: Iterator[int]) -> dict[str, Publish]:
    """The INSERT of one message, written as SQL and with SQLAlchemy's Core."""
    from faststream_outbox._store.postgres.listener import channel_of

    channel = channel_of(table)
    insert = table.insert().returning(table.c.id, func.pg_notify(channel, QUEUE))

    def values() -> dict[str, Any]:
        number = next(numbers)
        headers = HEADERS | {"content-type": "application/json", "correlation_id": str(uuid.uuid4())}
        return {
            "queue": QUEUE,
            "key": key_of(number),
            "idempotency_key": str(uuid.uuid4()),
            "payload": as_json(body_of(number)),
            "headers": headers,
        }

    async def as_sql(session: AsyncSession) -> None:
        chosen = values()
        chosen["headers"] = json.dumps(chosen["headers"])
        (await session.execute(INSERT, chosen | {"channel": channel})).first()

    async def as_core(session: AsyncSession) -> None:
        (await session.execute(insert, values())).first()

    return {"by hand, text()": as_sql, "by hand, insert()": as_core}


def besides(broker: OutboxBroker, mode: str, numbers: Iterator[int], table: Table) -> dict[str, Publish]:
    """Return other ways to publish the same messages; they are measured beside ours alone."""
    if mode == "one":
        return by_hand(table, numbers)
    if mode == "ten":
        insert = ten_times(by_hand(table, numbers)["by hand, text()"])
        return {"stage": by_staging(broker, numbers), "by hand, text()": insert}
    return {}


async def main(talk: Talk) -> None:
    options = talk.options
    table = make_outbox_table(MetaData())
    engine = create_async_engine(options["database"])
    factory = async_sessionmaker(engine, expire_on_commit=False)
    numbers = count()
    broker = OutboxBroker(engine, outbox_table=table, logger=quiet_logger())
    competitors = {"publish": with_broker(broker, options["mode"], numbers)}
    if Outgoing and not options.get("profile"):
        competitors |= besides(broker, options["mode"], numbers, table)
    size = max(1, options["count"] // BLOCKS)
    times: dict[str, list[float]] = {name: [] for name in competitors}
    cpu: dict[str, list[float]] = {name: [] for name in competitors}
    sampler = Sampler(enabled=options.get("profile", False))
    with sampler:
        # The first block warms up.
        for _ in range(BLOCKS + 1):
            for name, publish in competitors.items():
                began, used = time.perf_counter(), cpu_seconds()
                for _ in range(size):
                    async with factory() as session, session.begin():
                        await publish(session)
                times[name].append((time.perf_counter() - began) / size)
                cpu[name].append((cpu_seconds() - used) / size)
    await engine.dispose()
    talk.say(
        seconds={name: statistics.median(found[1:]) for name, found in times.items()},
        cpu={name: statistics.median(found[1:]) for name, found in cpu.items()},
        transactions=size * (BLOCKS + 1),
        profile=sampler.result(),
    )


if __name__ == "__main__":
    run(main)
