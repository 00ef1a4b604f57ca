"""Kafka topics seen from outside, with plain aiokafka: create, delete, read everything."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

Record = ConsumerRecord[bytes | None, bytes | None]


async def create_topic(
    bootstrap: str, topic: str, partitions: int, config: Mapping[str, str] | None = None, *, replicas: int = 1
) -> None:
    """Create a topic and return when it can be written to; raises the KafkaError of a refusal."""
    settings = dict(config or {})
    new_topic = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, topic_configs=settings)
    async with _admin(bootstrap) as admin:
        response = await admin.create_topics([new_topic])
        _raise_refusal(response.to_object()["topic_errors"])
        while len(led := await _partitions_with_leader(admin, topic)) < partitions:
            await asyncio.sleep(0.01)
    # A broker tells of its partitions before it takes records for them: it has done so once it knows their ends.
    async with _reader(bootstrap, led) as consumer:
        await consumer.end_offsets(led)


async def create_topic_on(bootstrap: str, topic: str, nodes: Sequence[int]) -> None:
    """Create a topic whose partitions have one replica each, on the nodes named, and return when all are led."""
    places = {partition: [node] for partition, node in enumerate(nodes)}
    new_topic = NewTopic(topic, num_partitions=-1, replication_factor=-1, replica_assignments=places)
    async with _admin(bootstrap) as admin:
        response = await admin.create_topics([new_topic])
        _raise_refusal(response.to_object()["topic_errors"])
        while len(led := await _partitions_with_leader(admin, topic)) < len(nodes):
            await asyncio.sleep(0.01)
    async with _reader(bootstrap, led) as consumer:
        await consumer.end_offsets(led)


async def led_partitions(bootstrap: str, topic: str) -> set[int]:
    """The partitions of a topic that have a leader, as a server tells."""
    async with _admin(bootstrap) as admin:
        return {place.partition for place in await _partitions_with_leader(admin, topic)}


async def delete_topic(bootstrap: str, topic: str) -> None:
    async with _admin(bootstrap) as admin:
        response = await admin.delete_topics([topic])
        _raise_refusal(response.to_object()["topic_error_codes"])


async def read_topic(bootstrap: str, topic: str, expected: int, timeout: float = 10.0) -> list[Record]:
    """Read a topic from its beginning, without a group: `expected` records, and whatever else is there by then.

    So a repeated record shows as one too many. The records of one partition are in its order.

    Raises TimeoutError, which says how many arrived, when there are fewer after `timeout` seconds.
    """
    records: list[Record] = []
    async with _admin(bootstrap) as admin:
        partitions = await _partitions_with_leader(admin, topic)
    async with _reader(bootstrap, partitions) as consumer:
        try:
            async with asyncio.timeout(timeout):
                while len(records) < expected or not await _at_end(consumer, partitions):
                    for batch in (await consumer.getmany(timeout_ms=50)).values():
                        records.extend(batch)
        except TimeoutError:
            raise TimeoutError(f"{len(records)} of {expected} records in {topic!r} after {timeout:g} s") from None
    return records


async def _at_end(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> bool:
    ends = await consumer.end_offsets(partitions)
    return all([await consumer.position(partition) >= end for partition, end in ends.items()])


async def _partitions_with_leader(admin: AIOKafkaAdminClient, topic: str) -> list[TopicPartition]:
    [described] = await admin.describe_topics([topic])
    return [TopicPartition(topic, each["partition"]) for each in described["partitions"] if each["leader"] >= 0]


@asynccontextmanager
async def _reader(bootstrap: str, partitions: list[TopicPartition]) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    consumer.assign(partitions)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


def _raise_refusal(errors: list[dict[str, Any]]) -> None:
    for error in errors:
        if error["error_code"]:
            raise for_code(error["error_code"])(error.get("error_message") or error["topic"])
