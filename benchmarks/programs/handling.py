"""Local subscribers at their defaults, with whichever package is installed: one that does nothing, or a FastAPI one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.messages import QUEUE
from benchmarks.programs.sampling import Sampler
from benchmarks.programs.talk import Talk, cpu_seconds, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox.fastapi import OutboxRouter


class Counter:
    """Counts handled messages up to a number."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.count = 0
        self.last = 0.0
        self.finished = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self.last = time.perf_counter()
        if self.count == self.expected:
            self.finished.set()


@asynccontextmanager
async def plain(engine: AsyncEngine, table: Table, counter: Counter) -> AsyncIterator[None]:
    """A subscriber whose handler does nothing."""
    broker = OutboxBroker(engine, outbox_table=table, logger=quiet_logger())

    @broker.subscriber(QUEUE)
    async def handle(_body: dict[str, Any]) -> None:
        counter.add()

    await broker.start()
    yield
    await broker.stop()


@asynccontextmanager
async def fastapi(engine: AsyncEngine, table: Table, counter: Counter) -> AsyncIterator[None]:
    """A subscriber that inserts a row in a session of its own."""
    metadata = MetaData()
    receipts = Table("receipts", metadata, Column("id", Integer, primary_key=True), Column("number", Integer))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    factory = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with factory() as session, session.begin():
            yield session

    router = OutboxRouter(engine, outbox_table=table, logger=quiet_logger())

    @router.subscriber(QUEUE)
    async def handle(body: dict[str, Any], session: AsyncSession = Depends(get_session)) -> None:
        await session.execute(insert(receipts), {"number": body["number"]})
        counter.add()

    app = FastAPI()
    app.include_router(router)
    async with app.router.lifespan_context(app):
        yield


async def main(talk: Talk) -> None:
    options = talk.options
    engine = create_async_engine(options["database"])
    counter = Counter(options["count"])
    sampler = Sampler(enabled=options.get("profile", False))
    subscribed = {"plain": plain, "fastapi": fastapi}[options["mode"]]
    with sampler:
        began, at_start = time.perf_counter(), cpu_seconds()
        async with subscribed(engine, make_outbox_table(MetaData()), counter):
            with suppress(TimeoutError):
                await asyncio.wait_for(counter.finished.wait(), options["window"])
            rate = counter.count / (counter.last - began)
    await engine.dispose()
    cpu = (cpu_seconds() - at_start) / counter.count
    talk.say(handled=counter.count, rate=rate, cpu=cpu, profile=sampler.result())


if __name__ == "__main__":
    run(main)
