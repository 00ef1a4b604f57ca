"""Waits for NOTIFY, takes rows, sends them to Kafka, deletes them: one loop on one connection each."""

import asyncio
from contextlib import AsyncExitStack

from benchmarks.limit.database import CHANNEL, connect
from benchmarks.limit.relay import DELETE, TAKE, to_kafka
from benchmarks.messages import QUEUE
from benchmarks.programs.talk import Talk, run


async def main(talk: Talk) -> None:
    options = talk.options
    rung = asyncio.Event()
    talk.say(ready=True)
    await talk.hear()

    async def follow() -> None:
        while True:
            await rung.wait()
            rung.clear()
            async with connection.transaction():
                if records := await connection.fetch(TAKE, QUEUE, 0):
                    await send(records)
                    await connection.execute(DELETE, [record[0] for record in records])

    async with AsyncExitStack() as stack:
        connection = await connect(options["database"])
        stack.push_async_callback(connection.close)
        listening = await connect(options["database"])
        stack.push_async_callback(listening.close)
        send = await to_kafka(stack, options["address"], options["name"])
        await listening.add_listener(CHANNEL, lambda *_: rung.set())
        following = asyncio.create_task(follow())
        await talk.hear()
        following.cancel()
        await asyncio.wait([following])
    talk.say(stopped=True)


if __name__ == "__main__":
    run(main)
