"""Many publishers at once, each committing one message after the other."""

import asyncio
import time
from itertools import count

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.messages import HEADERS, QUEUE, body_of
from benchmarks.programs.talk import Talk, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table


async def main(talk: Talk) -> None:
    options = talk.options
    tasks = options["tasks"]
    engine = create_async_engine(options["database"], pool_size=tasks)
    factory = async_sessionmaker(engine, expire_on_commit=False)
    table = make_outbox_table(MetaData())
    broker = OutboxBroker(engine, outbox_table=table, logger=quiet_logger(), notify=options["notify"])
    numbers = count()

    async def commit(deadline: float) -> int:
        committed = 0
        while time.monotonic() < deadline:
            async with factory() as session, session.begin():
                await broker.publish(body_of(next(numbers)), queue=QUEUE, session=session, headers=HEADERS)
            committed += 1
        return committed

    # Opens all connections before the clock runs.
    await asyncio.gather(*(commit(time.monotonic() + 0.5) for _ in range(tasks)))
    talk.say(ready=True)
    await talk.hear()
    began = time.monotonic()
    committed = sum(await asyncio.gather(*(commit(began + options["seconds"]) for _ in range(tasks))))
    talk.say(rate=committed / (time.monotonic() - began))
    await engine.dispose()


if __name__ == "__main__":
    run(main)
