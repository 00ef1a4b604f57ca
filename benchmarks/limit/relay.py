"""Takes rows, sends them, deletes them: two loops of 500 rows on one connection to the destination."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.limit.database import connect
from benchmarks.limit.wire import COLUMNS, envelope_of, headers_of
from benchmarks.messages import QUEUE
from benchmarks.programs.talk import Talk, cpu_seconds, run

BATCH = 500
LOOPS = 2
RECORD_BATCH_BYTES = 1024 * 1024

# Behind the last row taken: a static backlog needs no more. The order of keys is nobody's concern here.
TAKE = f"""
    SELECT {COLUMNS} FROM outbox
    WHERE queue = $1 AND id > $2 AND next_attempt_at IS NULL AND failed_at IS NULL
    ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - the columns and the number above
DELETE = "DELETE FROM outbox WHERE id = ANY ($1::bigint[])"

Send = Callable[[Sequence[Any]], Awaitable[None]]


async def to_kafka(stack: AsyncExitStack, address: str, topic: str) -> Send:
    """Send with aiokafka's producer, a record batch for each partition: half as dear as a call for each record."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.partitioner import DefaultPartitioner

    options = {"bootstrap_servers": address, "acks": "all", "max_batch_size": RECORD_BATCH_BYTES}
    producer = await stack.enter_async_context(AIOKafkaProducer(**options))
    partitions = sorted(await producer.partitions_for(topic))
    partitioner = DefaultPartitioner()

    async def send(records: Sequence[Any]) -> None:
        batches = {partition: producer.create_batch() for partition in partitions}
        for record in records:
            key = None if record[2] is None else record[2].encode()
            headers = [(name, value.encode()) for name, value in headers_of(record).items()]
            partition = partitioner(key, partitions, partitions)
            batches[partition].append(key=key, value=record[4], timestamp=None, headers=headers)
        sending = [
            await producer.send_batch(batch, topic, partition=partition)
            for partition, batch in batches.items()
            if batch.record_count()
        ]
        await asyncio.gather(*sending)

    return send


async def to_rabbit(stack: AsyncExitStack, address: str, queue: str) -> Send:
    """Send with aio-pika, persistent and confirmed."""
    import aio_pika

    connection = await stack.enter_async_context(await aio_pika.connect(address))
    channel = await stack.enter_async_context(connection.channel(publisher_confirms=True, on_return_raises=True))

    def message(record: Any) -> aio_pika.Message:
        headers = headers_of(record)
        if record[2] is not None:
            headers["outbox-key"] = record[2]
        return aio_pika.Message(
            record[4],
            content_type=headers.pop("content-type"),
            correlation_id=headers.pop("correlation_id"),
            headers=headers,
            message_id=record[3],
            timestamp=record[6],
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )

    async def send(records: Sequence[Any]) -> None:
        exchange = channel.default_exchange
        await asyncio.gather(*(exchange.publish(message(record), queue) for record in records))

    return send


async def to_redis(stack: AsyncExitStack, address: str, stream: str) -> Send:
    """Send with redis-py's pipeline, in FastStream's envelope."""
    from redis.asyncio import Redis

    client = await stack.enter_async_context(Redis.from_url(address))

    async def send(records: Sequence[Any]) -> None:
        pipeline = client.pipeline(transaction=True)
        for record in records:
            pipeline.xadd(stream, {"__data__": envelope_of(record)})
        await pipeline.execute()

    return send


async def loop(url: str, send: Send, last: list[int]) -> None:
    """Carry rows until there are no more."""
    connection = await connect(url)
    try:
        while True:
            async with connection.transaction():
                records = await connection.fetch(TAKE, QUEUE, last[0])
                if not records:
                    return
                last[0] = max(last[0], records[-1][0])
                await send(records)
                await connection.execute(DELETE, [record[0] for record in records])
    finally:
        await connection.close()


async def main(talk: Talk) -> None:
    options = talk.options
    reach = {"kafka": to_kafka, "rabbit": to_rabbit, "redis": to_redis}[options["kind"]]
    talk.say(ready=True)
    await talk.hear()
    at_start = cpu_seconds()
    async with AsyncExitStack() as stack:
        send = await reach(stack, options["address"], options["name"])
        last = [0]
        await asyncio.gather(*(loop(options["database"], send, last) for _ in range(LOOPS)))
        await talk.hear()
    talk.say(cpu=cpu_seconds() - at_start)


if __name__ == "__main__":
    run(main)
