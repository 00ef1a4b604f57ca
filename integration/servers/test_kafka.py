"""The session's Kafka: the real one's answers, and a server that can be broken and comes back."""

import asyncio
from collections import Counter

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)

from integration.faults.proxy import TcpProxy

from .kafka import KafkaServer, OwnKafka
from .mock_kafka import mock_kafka
from .topics import read_topic


async def send(bootstrap: str, topic: str, *keys: str, **options: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **options)
    try:
        await producer.start()
        sent = [await producer.send(topic, key=key.encode(), value=key.upper().encode()) for key in keys]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def test_everything_in_a_topic_is_read_repeats_included(kafka_server: KafkaServer, kafka_topic: str) -> None:
    keys = [f"key-{number}" for number in range(50)]
    await send(kafka_server.bootstrap, kafka_topic, *keys, "key-7")
    records = await read_topic(kafka_server.bootstrap, kafka_topic, expected=50)
    assert Counter(record.key for record in records) == Counter(key.encode() for key in [*keys, "key-7"])
    assert len({record.partition for record in records}) == 6
    assert all(record.value == record.key.upper() for record in records if record.key)


async def test_too_few_records_are_an_error_with_numbers(kafka_server: KafkaServer, kafka_topic: str) -> None:
    await send(kafka_server.bootstrap, kafka_topic, "one", "two")
    with pytest.raises(TimeoutError, match=r"2 of 3 records"):
        await read_topic(kafka_server.bootstrap, kafka_topic, expected=3, timeout=1)


async def test_an_empty_topic_is_read_at_once(kafka_server: KafkaServer, kafka_topic: str) -> None:
    assert await read_topic(kafka_server.bootstrap, kafka_topic, expected=0) == []


async def test_a_topic_has_the_settings_it_was_given(kafka_server: KafkaServer) -> None:
    with kafka_server.topic(1, max_message_bytes="200") as topic, pytest.raises(MessageSizeTooLargeError):
        await send(kafka_server.bootstrap, topic, "k" * 200)


async def test_an_unknown_topic_is_not_created(kafka_server: KafkaServer) -> None:
    with pytest.raises((UnknownTopicOrPartitionError, KafkaError)):
        await send(kafka_server.bootstrap, "never-made", "one", request_timeout_ms=1000)


async def test_clients_stay_behind_the_proxy(
    kafka_server: KafkaServer, kafka_proxy: TcpProxy, kafka_topic: str
) -> None:
    await send(kafka_proxy.address, kafka_topic, "through")
    kafka_proxy.refuse()
    kafka_proxy.reset()
    with pytest.raises(KafkaConnectionError):
        await send(kafka_proxy.address, kafka_topic, "refused")
    await kafka_proxy.restore()
    kafka_proxy.delay(0.05)
    await send(kafka_proxy.address, kafka_topic, "again")
    records = await read_topic(kafka_server.bootstrap, kafka_topic, expected=2)
    assert {record.key for record in records} == {b"through", b"again"}


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_keeps_ports_and_data(kafka_server: KafkaServer, kafka_topic: str, killed: bool) -> None:
    if not isinstance(kafka_server, OwnKafka):
        pytest.skip("a server named by the environment is not ours to stop")
    await send(kafka_server.bootstrap, kafka_topic, "before")
    if killed:
        kafka_server.process.kill()
    else:
        kafka_server.stop()
    with pytest.raises(KafkaConnectionError):
        await send(kafka_server.bootstrap, kafka_topic, "during")
    await asyncio.to_thread(kafka_server.start)
    await send(kafka_server.bootstrap, kafka_topic, "after")
    records = await read_topic(kafka_server.bootstrap, kafka_topic, expected=2)
    assert {record.key for record in records} == {b"before", b"after"}


async def test_the_mock_speaks_the_protocol() -> None:
    with mock_kafka() as bootstrap:
        await send(bootstrap, "anything", "one", "two")
        assert len(await read_topic(bootstrap, "anything", expected=2)) == 2
