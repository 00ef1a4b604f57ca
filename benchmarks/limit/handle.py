"""Takes ten rows, gives each to the handler with a session of its own, deletes them: asyncpg and SQLAlchemy alone."""

import asyncio
import json
import time
from contextlib import suppress

from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.limit.database import connect
from benchmarks.limit.relay import DELETE
from benchmarks.messages import QUEUE
from benchmarks.programs.talk import Talk, cpu_seconds, run

TAKE = """
    SELECT id, payload FROM outbox
    WHERE queue = $1 AND id > $2 AND next_attempt_at IS NULL AND failed_at IS NULL
    ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED
"""


async def main(talk: Talk) -> None:
    options = talk.options
    engine = create_async_engine(options["database"])
    factory = async_sessionmaker(engine, expire_on_commit=False)
    metadata = MetaData()
    receipts = Table("receipts", metadata, Column("id", Integer, primary_key=True), Column("number", Integer))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    outbox = await connect(options["database"])
    handled = last = 0

    async def handle() -> None:
        nonlocal handled, last
        while handled < options["count"]:
            async with outbox.transaction():
                records = await outbox.fetch(TAKE, QUEUE, last)
                for record in records:
                    async with factory() as session, session.begin():
                        await session.execute(insert(receipts), {"number": json.loads(record[1])["number"]})
                    handled += 1
                    last = record[0]
                await outbox.execute(DELETE, [record[0] for record in records])

    began, at_start = time.perf_counter(), cpu_seconds()
    with suppress(TimeoutError):
        await asyncio.wait_for(handle(), options["window"])
    rate, cpu = handled / (time.perf_counter() - began), (cpu_seconds() - at_start) / handled
    await outbox.close()
    await engine.dispose()
    talk.say(handled=handled, rate=rate, cpu=cpu)


if __name__ == "__main__":
    run(main)
