"""The other package's relay: a stacked publisher over a subscriber, as its page on relays shows."""

from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.messages import QUEUE
from benchmarks.programs.talk import Talk, cpu_seconds, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table


def broker_of(kind: str, address: str) -> Any:
    """Make the destination's broker, with the same durability as everybody's."""
    match kind:
        case "kafka":
            from faststream.kafka import KafkaBroker

            return KafkaBroker(address, acks="all", logger=quiet_logger())
        case "rabbit":
            from faststream.rabbit import RabbitBroker

            return RabbitBroker(address, logger=quiet_logger())
        case _:
            from faststream.redis import RedisBroker

            return RedisBroker(address, logger=quiet_logger())


def publisher_of(kind: str, broker: Any, name: str) -> Any:
    match kind:
        case "kafka":
            return broker.publisher(name)
        case "rabbit":
            return broker.publisher(name, persist=True)
        case _:
            return broker.publisher(stream=name)


async def main(talk: Talk) -> None:
    options = talk.options
    settings = options.get("settings", {})
    # Its manual: a pool for max_workers + 1 connections of each subscriber.
    engine = create_async_engine(options["database"], pool_size=settings.get("max_workers", 1) + 5)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=quiet_logger())
    destination = broker_of(options["kind"], options["address"])

    @publisher_of(options["kind"], destination, options["name"])
    @broker.subscriber(QUEUE, propagate_inbound_headers=True, **settings)
    async def relay(body: dict[str, Any]) -> dict[str, Any]:
        return body

    talk.say(ready=True)
    await talk.hear()
    at_start = cpu_seconds()
    await destination.connect()
    await broker.start()
    await talk.hear()
    await broker.stop()
    await destination.stop()
    await engine.dispose()
    talk.say(cpu=cpu_seconds() - at_start)


if __name__ == "__main__":
    run(main)
