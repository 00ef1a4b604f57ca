"""Rows that name a topic of their own, on the real Kafka."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from faststream.kafka import KafkaBroker

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Unsent
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_order
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.kafka import KafkaServer
from integration.servers.topics import create_topic, delete_topic


async def test_each_row_goes_to_its_topic_by_its_key_and_in_order(
    kafka: KafkaBroker, kafka_server: KafkaServer, topic: KafkaBox
) -> None:
    with kafka_server.topic(3) as second, kafka_server.topic(1) as third:
        addresses = (None, second, third, topic.name)
        parcels = [parcel(addresses[n % 4], key=f"key-{n % 5}" if n % 6 else None) for n in range(200)]
        async with destination(kafka.publisher(topic.name)) as to:
            assert set(await carry(to, parcels[:100])) == {Accepted()}
            assert set(await carry(to, parcels[100:])) == {Accepted()}
        for name, partitions in ((topic.name, 6), (second, 3), (third, 1)):
            sent = {each.row.id for each in parcels if (each.address or topic.name) == name}
            records = await KafkaBox(kafka_server, name).received(len(sent))
            assert sorted(record.row_id for record in records) == sorted(sent)
            check_order(records)
            everywhere = list(range(partitions))
            for record in records:
                if record.key is not None:
                    assert record.place == DefaultPartitioner()(record.key.encode(), everywhere, everywhere)


async def test_a_missing_topic_refuses_its_rows_and_no_others(
    kafka: KafkaBroker, kafka_server: KafkaServer, topic: KafkaBox
) -> None:
    missing = f"{topic.name}-missing"
    parcels = [parcel(missing, key="a"), parcel(key="b"), parcel(missing, key="a"), parcel(missing, key=None), parcel()]
    async with destination(kafka.publisher(topic.name)) as to:
        assert await carry(to, [parcel(key=key) for key in ("b", "k")]) == [Accepted()] * 2
        for _ in range(2):
            verdicts = await to.send(parcels)
            assert [type(verdict) for verdict in verdicts] == [Refused, Accepted, Unsent, Refused, Accepted]
            assert "UNKNOWN_TOPIC_OR_PARTITION" in str(verdicts[0])
            assert verdicts[2] == Unsent(), "it waits behind the first of its key, and that is no outage"
        assert len(await topic.received(6)) == 6
        await create_topic(kafka_server.bootstrap, missing, 2)
        try:
            assert set(await carry(to, parcels)) == {Accepted()}
            assert len(await KafkaBox(kafka_server, missing).received(3)) == 3
        finally:
            await delete_topic(kafka_server.bootstrap, missing)


async def test_a_topic_that_is_deleted_and_made_again(
    kafka: KafkaBroker, kafka_server: KafkaServer, topic: KafkaBox
) -> None:
    other = f"{topic.name}-other"
    async with destination(kafka.publisher(topic.name)) as to:
        for partitions in (1, 4):
            await create_topic(kafka_server.bootstrap, other, partitions)
            parcels = [parcel(other, key=None) for _ in range(8)]
            verdicts = await carry(to, parcels)
            while Accepted() not in verdicts:
                verdicts = await carry(to, parcels)
            await delete_topic(kafka_server.bootstrap, other)
            # Kafka takes it out of its metadata a moment later.
            while Accepted() in await carry(to, [parcel(other)]):
                pass
            assert await carry(to, [parcel()]) == [Accepted()]


async def test_what_cannot_be_a_topic_is_poison(kafka: KafkaBroker, topic: KafkaBox) -> None:
    addresses = ["", ".", "..", "a b", "orders/v1", "ä", "x" * 250, "new\nline", "orders.v1\n", "\ud800"]
    async with destination(kafka.publisher(topic.name)) as to:
        *poison, accepted = await carry(to, [*map(parcel, addresses), parcel()])
    for address, verdict in zip(addresses, poison, strict=True):
        assert isinstance(verdict, Poison)
        assert verdict.reason == Reason.INVALID
        assert repr(address) in str(verdict.exception)
    assert accepted == Accepted()


async def test_the_longest_topic_name(kafka: KafkaBroker, kafka_server: KafkaServer, topic: KafkaBox) -> None:
    name = topic.name.ljust(249, "x")
    await create_topic(kafka_server.bootstrap, name, 1)
    try:
        async with destination(kafka.publisher(topic.name)) as to:
            assert await carry(to, [parcel(name)]) == [Accepted()]
    finally:
        await delete_topic(kafka_server.bootstrap, name)


async def test_the_forwarders_own_topic_missing_is_an_outage(kafka: KafkaBroker, topic: KafkaBox) -> None:
    async with destination(kafka.publisher(f"{topic.name}-missing")) as to:
        with pytest.raises(KafkaAnswerError, match="UNKNOWN_TOPIC_OR_PARTITION"):
            await to.connect()
        [verdict] = await to.send([parcel(topic.name)])
        assert isinstance(verdict, Unsent)
