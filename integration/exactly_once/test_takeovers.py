"""A process that has just started, and a log in which others have written much since the last one died."""

import signal
import time
from collections import Counter
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faststream.kafka import KafkaBroker

from faststream_outbox._values.wire import ROW_ID
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.settings import KafkaSettings

from .relays import relay_process
from .shop import Shop, check_order, number_of

FOREIGN = 100_000
IN_A_BATCH = 1000


async def append_foreign_records(shop: Shop) -> None:
    """Append records of somebody else to each partition."""
    builder: Any = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10_000_000,
    )
    for position in range(IN_A_BATCH):
        builder.append(position, None, b"key", b"x" * 100, [("from", b"somebody else")])
    batch = bytes(builder.build())
    broker = KafkaBroker(shop.bootstrap, acks="all", logger=None)
    client = KafkaClient(KafkaSettings.of(broker.publisher(shop.topic)))
    await client.refresh()
    for partition in client.partitions(shop.topic):
        for _ in range(FOREIGN // IN_A_BATCH if partition == 0 else 1):
            await client.produce(shop.topic, partition, batch)
    await client.close()


async def test_it_finds_what_is_in_doubt_behind_a_hundred_thousand_records_of_others(
    shop: Shop, database_url: str
) -> None:
    await shop.publish(400)
    crash = ("before the outcomes are written", 1, signal.SIGKILL)
    async with relay_process(database_url, bootstrap=shop.bootstrap, topic=shop.topic, crash=crash) as relay:
        await relay.says("crash")
    assert await shop.rows() == 400
    await append_foreign_records(shop)
    broker, forwarder = shop.relay()
    began, working = time.monotonic(), time.process_time()
    await broker.start()
    await shop.until_empty()
    seconds, working = time.monotonic() - began, time.process_time() - working
    print(f"\ntaken over in {seconds:.2f} s, of which this process has worked {working:.2f} s")
    # A busy machine may take longer for it, but not with more work.
    assert working < 2.0
    records = [record for record in await shop.records() if ROW_ID in dict(record.headers)]
    assert Counter(map(number_of, records)) == dict.fromkeys(range(400), 1)
    check_order(records)
    assert (await forwarder.status()).maybe_repeated == 0
