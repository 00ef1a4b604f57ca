"""Publishes messages at an even pace and tells when each transaction was committed."""

import asyncio
import time

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.messages import HEADERS, QUEUE, body_of
from benchmarks.programs.talk import Talk, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table


async def main(talk: Talk) -> None:
    options = talk.options
    engine = create_async_engine(options["database"])
    factory = async_sessionmaker(engine, expire_on_commit=False)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=quiet_logger())
    commits = []
    talk.say(ready=True)
    await talk.hear()
    began = time.monotonic()
    for number in range(int(options["seconds"] * options["rate"])):
        await asyncio.sleep(began + number / options["rate"] - time.monotonic())
        async with factory() as session, session.begin():
            await broker.publish(body_of(number), queue=QUEUE, session=session, headers=HEADERS)
        commits.append(time.monotonic())
    await engine.dispose()
    talk.say(commits=commits)


if __name__ == "__main__":
    run(main)
