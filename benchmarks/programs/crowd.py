"""A process with many subscribers, their workers, and relays: how many connections does it need?"""

import asyncio
from typing import Any

from faststream.redis import RedisBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.programs.talk import Talk, quiet_logger, run
from faststream_outbox import OutboxBroker, make_outbox_table

POOL = 100
HANDLER_SECONDS = 0.005


async def main(talk: Talk) -> None:
    options = talk.options
    # More than anybody needs: nothing but the package decides how many are opened.
    engine = create_async_engine(options["database"], pool_size=POOL)
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=quiet_logger())
    redis = RedisBroker(options["address"], logger=quiet_logger())
    for queue in options["subscribers"]:

        @broker.subscriber(queue, max_workers=options["workers"])
        async def handle(_body: dict[str, Any]) -> None:
            await asyncio.sleep(HANDLER_SECONDS)

    for queue in options["relays"]:
        publisher = redis.publisher(stream=f"{options['name']}-{queue}")
        if hasattr(broker, "forwarder"):
            broker.forwarder(queue, to=publisher)
        else:

            @publisher
            @broker.subscriber(queue, max_workers=options["workers"])
            async def relay(body: dict[str, Any]) -> dict[str, Any]:
                return body

    await redis.connect()
    await broker.start()
    talk.say(ready=True)
    await talk.hear()
    await broker.stop()
    await redis.stop()
    await engine.dispose()
    talk.say(stopped=True)


if __name__ == "__main__":
    run(main)
