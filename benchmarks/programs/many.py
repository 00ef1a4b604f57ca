"""A process with many forwarders to one Kafka, or many subscribers, that have nothing to do."""

import time
from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.programs.talk import Talk, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table


async def main(talk: Talk) -> None:
    options = talk.options
    engine = create_async_engine(options["database"], pool_size=15)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=quiet_logger())
    kafka = KafkaBroker(options["address"], acks="all", logger=quiet_logger())
    for queue in options["forwarders"]:
        broker.forwarder(queue, to=kafka.publisher(options["topic"]), name=queue)
    for queue in options["subscribers"]:

        @broker.subscriber(queue)
        async def handle(_body: dict[str, Any]) -> None: ...

    await broker.start()
    talk.say(ready=True)
    while (asked := await talk.hear()) != "stop":
        talk.say(cpu=time.process_time(), asked=asked)
    await broker.stop()
    await engine.dispose()
    talk.say(stopped=True)


if __name__ == "__main__":
    run(main)
