"""What a real leader tells, and what is in its log."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faststream.kafka import KafkaBroker

from faststream_outbox._values.position import Mark, Part, Producer
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.exact.look import Batch, Log
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from integration.servers.kafka import KafkaServer


@pytest.fixture
async def client(kafka_server: KafkaServer, topic: str) -> AsyncIterator[KafkaClient]:
    broker = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
    client = KafkaClient(KafkaSettings.of(broker.publisher(topic)))
    await client.refresh()
    yield client
    await client.close()


def batch(producer: Producer, sequence: int, ids: list[int]) -> bytes:
    builder: Any = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=producer.id,
        producer_epoch=producer.epoch,
        base_sequence=sequence,
        batch_size=10_000,
    )
    for position, id_ in enumerate(ids):
        headers = [("outbox-id", str(id_).encode()), ("idempotency-key", f"k{id_}".encode())]
        builder.append(position, None, None, b"body", headers)
    return bytes(builder.build())


async def end_of(leaders: Leaders, part: Part) -> int:
    told = (await leaders.tell([part]))[part]
    assert not isinstance(told, Exception)
    return told.end


async def test_a_leader_tells_of_a_producer_and_shows_its_batches(client: KafkaClient, topic: str) -> None:
    leaders, part = Leaders(client), Part(topic, 1)
    producer, other = await leaders.new_producer(), await leaders.new_producer()
    assert producer != other
    assert await end_of(leaders, part) == 0
    assert await client.produce(*part, batch(other, 0, [9])) == 0
    assert await client.produce(*part, batch(producer, 0, [1, 2])) == 1
    told = (await leaders.tell([part]))[part]
    assert not isinstance(told, Exception)
    assert told.of(producer) == Log(2, 0, 3)
    assert told.of(Producer(-5, 0)) == Log(None, 0, 3)
    found = await leaders.read(part, 1, {producer.id})
    assert [(one.offset, one.end, one.batch) for one in found] == [
        (1, 3, Batch(1, 0, 2, [Mark(1, "k1"), Mark(2, "k2")]))
    ]


async def test_the_log_takes_one_batch_for_a_sequence_number(client: KafkaClient, topic: str) -> None:
    leaders, part = Leaders(client), Part(topic, 0)
    producer = await leaders.new_producer()
    await client.produce(*part, batch(producer, 0, [1, 2]))
    assert await client.produce(*part, batch(producer, 0, [3, 4])) == 0, "Kafka compares numbers, never contents"
    with pytest.raises(KafkaAnswerError, match="45"):
        await client.produce(*part, batch(producer, 0, [3]))
    assert await end_of(leaders, part) == 2


async def test_a_partition_that_is_not_there_does_not_hide_the_others(client: KafkaClient, topic: str) -> None:
    part, missing = Part(topic, 0), Part(topic, 77)
    told = await Leaders(client).tell([part, missing])
    assert isinstance(told[missing], KafkaAnswerError)
    assert not isinstance(told[part], Exception)
