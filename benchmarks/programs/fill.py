"""Creates an outbox table and publishes messages into it, with whichever package is installed."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.messages import HEADERS, QUEUE, body_of, key_of
from benchmarks.programs.talk import Talk, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table

try:
    from faststream_outbox import Outgoing
except ImportError:
    # The other package has no keys.
    Outgoing = None

BATCH = 1000


def messages(numbers: Sequence[int]) -> list[Any]:
    """Give messages for `publish_batch`, with keys where there are such."""
    if Outgoing is None:
        return [body_of(number) for number in numbers]
    return [Outgoing(body_of(number), key=key_of(number)) for number in numbers]


async def fill(engine: AsyncEngine, broker: OutboxBroker, count: int, queue: str) -> None:
    """Publish messages 0 to count - 1."""
    for first in range(0, count, BATCH):
        batch = messages(range(first, min(first + BATCH, count)))
        async with engine.connect() as connection, connection.begin():
            await broker.publish_batch(*batch, queue=queue, session=connection, headers=HEADERS)


async def main(talk: Talk) -> None:
    metadata = MetaData()
    table = make_outbox_table(metadata)
    engine = create_async_engine(talk.options["database"])
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    broker = OutboxBroker(engine, outbox_table=table, logger=quiet_logger())
    for queue in talk.options.get("queues", [QUEUE]):
        await fill(engine, broker, talk.options["count"], queue)
    await engine.dispose()
    talk.say(done=True)


if __name__ == "__main__":
    run(main)
