"""What a transform says of messages, on the way from a real table to a real topic."""

from collections import defaultdict

from faststream.kafka import KafkaBroker

from faststream_outbox import Forward, NoRetry, OutboxBroker, OutboxMessage, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.forwarders.carrying import Publishing


async def test_keys_and_headers_are_changed_and_some_messages_dropped(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    def transform(message: OutboxMessage) -> Forward | None:
        if message.body == b"secret":
            return None
        if message.body == b"bad":
            raise ValueError("no such country: 'xx'")
        customer, _, region = (message.key or "").partition("/")
        return Forward(key=customer, headers={"internal": None, "region": region})

    # Two customers with orders from three regions each: the regions' orders are in order, and go to a customer's key.
    ids = await publishing.many(
        Outgoing(str(number), key=f"customer-{number % 2}/{number % 3}", headers={"internal": "x", "kept": "y"})
        for number in range(300)
    )
    await publishing.many([Outgoing(b"secret", key="customer-0/0"), Outgoing(b"bad", key="other")])
    forwarder = broker.forwarder(
        "orders", to=kafka.publisher(topic.name), transform=transform, retry_strategy=NoRetry()
    )
    await broker.start()
    records = await topic.received(len(ids))
    [parked] = await eventually(lambda: table.query("SELECT * FROM outbox WHERE failed_at IS NOT NULL"))
    assert (parked.key, parked.failure_reason) == ("other", "retries_exhausted")
    assert parked.last_exception == "ValueError: no such country: 'xx'"
    await eventually(lambda: _none_waits(table))
    assert sorted(record.row_id for record in records) == ids
    by_region: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        headers = record.headers
        number = ids.index(record.row_id)
        assert record.body == str(number).encode()
        assert record.key == f"customer-{number % 2}"
        assert (headers["region"], headers["kept"], headers["content-type"]) == (str(number % 3), "y", "text/plain")
        assert "internal" not in headers
        by_region[f"{number % 2}/{number % 3}"].append(number)
    assert len(by_region) == 6
    assert all(numbers == sorted(numbers) for numbers in by_region.values())
    assert forwarder.name == f"kafka:{topic.name}"


async def _none_waits(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def test_rows_of_one_key_that_are_sent_with_several_keep_their_order(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    """They land in different partitions, so what can be seen is that all arrive, each key in its order."""

    def transform(message: OutboxMessage) -> Forward:
        return Forward(key=f"{message.key}-{int(message.body) % 4}")

    ids = await publishing.many(Outgoing(str(number), key=f"key-{number % 10}") for number in range(400))
    broker.forwarder("orders", to=kafka.publisher(topic.name), transform=transform)
    await broker.start()
    await eventually(table.is_empty, within=20)
    records = await topic.received(len(ids))
    assert sorted(record.row_id for record in records) == ids
    by_key: defaultdict[str | None, list[int]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(record.row_id)
    assert len(by_key) == 20
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
