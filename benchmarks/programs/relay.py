"""This project's forwarder from one queue to one destination, until it is told to stop."""

from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.messages import QUEUE
from benchmarks.programs.sampling import Sampler
from benchmarks.programs.talk import Talk, cpu_seconds, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table, make_position_table


def publisher(kind: str, address: str, name: str) -> Any:
    """Make a FastStream publisher of a broker that nobody connects."""
    match kind:
        case "kafka":
            from faststream.kafka import KafkaBroker

            return KafkaBroker(address, acks="all", logger=quiet_logger()).publisher(name)
        case "rabbit":
            from faststream.rabbit import RabbitBroker

            return RabbitBroker(address, logger=quiet_logger()).publisher(name, persist=True)
        case _:
            from faststream.redis import RedisBroker

            return RedisBroker(address, logger=quiet_logger()).publisher(stream=name)


async def main(talk: Talk) -> None:
    options = talk.options
    engine = create_async_engine(options["database"])
    metadata = MetaData()
    broker = OutboxBroker(
        engine,
        outbox_table=make_outbox_table(metadata),
        position_table=make_position_table(metadata),
        logger=quiet_logger(),
    )
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    to = publisher(options["kind"], options["address"], options["name"])
    broker.forwarder(QUEUE, to=to, **options.get("settings", {}))
    sampler = Sampler(enabled=options.get("profile", False))
    talk.say(ready=True)
    await talk.hear()
    at_start = cpu_seconds()
    with sampler:
        await broker.start()
        await talk.hear()
    await broker.stop()
    await engine.dispose()
    talk.say(cpu=cpu_seconds() - at_start, profile=sampler.result())


if __name__ == "__main__":
    run(main)
