"""What a transform says of messages, on the way from a real table to each real destination."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Table as SqlTable

from faststream_outbox import ConstantRetry, Forward, NoRetry, OutboxBroker, OutboxMessage, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.kinds import BOXES, REAL
from integration.destinations.received import Received, without_repeats

from .carrying import Publishing
from .conftest import MakeBroker

CAN_BE_SHUT = [kind for kind in REAL if BOXES[kind].can_be_shut]


@pytest.mark.parametrize("box", REAL, indirect=True)
async def test_addresses_keys_and_headers_are_changed_and_some_messages_dropped(
    *, box: Box, make_broker: MakeBroker, dlq_table: SqlTable, publishing: Publishing, table: Table
) -> None:
    async with box.beside() as beside:

        def transform(message: OutboxMessage) -> Forward | None:
            if message.body == b"secret":
                return None
            if message.body == b"bad":
                raise ValueError("no such country: 'xx'")
            customer, _, region = (message.key or "").partition("/")
            headers = {"internal": None, "region": region}
            return Forward(to=beside.address if region == "1" else None, key=customer, headers=headers)

        # Two customers with orders from three regions each; those of one region go elsewhere.
        messages = [
            Outgoing(b"%d" % n, key=f"customer-{n % 2}/{n % 3}", headers={"internal": "x", "kept": "y"})
            for n in range(120)
        ]
        ids = await publishing.many(messages)
        await publishing.many(Outgoing(b"secret", key="customer-0/0") for _ in range(3))
        [bad, after] = await publishing.many([Outgoing(b"bad", key="other/0"), Outgoing(b"after", key="other/0")])
        broker = make_broker(dlq_table=dlq_table)
        forwarder = broker.forwarder("orders", to=box.publisher(), transform=transform, retry_strategy=NoRetry())
        await broker.start()
        await eventually(table.is_empty, within=20)
        here, there = await box.received(81), await beside.received(40)
        status = await forwarder.status()
    assert (status.sent, status.dropped, status.dead) == (121, 3, 1)
    [dead] = await table.rows("outbox_dlq")
    assert (dead.id, dead.key, dead.failure_reason) == (bad, "other/0", "retries_exhausted")
    assert dead.last_exception == "ValueError: no such country: 'xx'"
    [follower] = [message for message in here if message.row_id == after]
    assert (follower.key, follower.body) == ("other", b"after")
    here.remove(follower)
    assert sorted(message.row_id for message in here) == [i for n, i in enumerate(ids) if n % 3 != 1]
    assert sorted(message.row_id for message in there) == [i for n, i in enumerate(ids) if n % 3 == 1]
    numbers = {row_id: number for number, row_id in enumerate(ids)}
    for message in (*here, *there):
        number = numbers[message.row_id]
        assert (message.key, message.body) == (f"customer-{number % 2}", messages[number].body)
        assert (message.headers["region"], message.headers["kept"]) == (str(number % 3), "y")
        assert "internal" not in message.headers
    for part in range(6):
        _check_order_of([message for message in (*here, *there) if numbers[message.row_id] % 6 == part])


@pytest.mark.parametrize("box", CAN_BE_SHUT, indirect=True)
async def test_a_refused_row_holds_back_the_rows_behind_it_of_a_partly_failed_hand_over(
    box: Box, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    """G4, with a refusal of the server's own."""
    async with box.shut() as shut:

        def transform(message: OutboxMessage) -> Forward:
            return Forward(to=shut.address if message.body == b"elsewhere" else None)

        # Every fourth key is refused at its third row, and has three more behind it; one key begins with it.
        keys = [f"key-{n}" for n in range(20)]
        ids: dict[str, list[int]] = {key: [] for key in keys}
        messages = [
            Outgoing(b"elsewhere" if (place == 2 and n % 4 == 0) or (place == 0 and n == 7) else b"", key=key)
            for place in range(6)
            for n, key in enumerate(keys)
        ]
        for row_id, message in zip(await publishing.many(messages), messages, strict=True):
            ids[message.key or ""].append(row_id)
        retry = ConstantRetry(delay_seconds=0.2)
        broker.forwarder("orders", to=box.publisher(), lanes=1, transform=transform, retry_strategy=retry)
        await broker.start()
        free = {row_id for n, key in enumerate(keys) for row_id in ids[key][: 2 if n % 4 == 0 else 0 if n == 7 else 6]}
        await eventually(lambda: _has_only(table, 120 - len(free)), within=15)
        await eventually(lambda: _were_refused(table, 6), within=10)
        assert {message.row_id for message in await box.received(len(free))} == free
        opened = await shut.open()
        await eventually(table.is_empty, within=20)
        here, there = await box.received(114), await opened.received(6)
    assert len(here) == 114
    assert sorted(message.row_id for message in there) == sorted([*(ids[key][2] for key in keys[::4]), ids["key-7"][0]])
    for key in keys:
        _check_order_of([message for message in here if message.key == key])


@pytest.mark.parametrize("box", CAN_BE_SHUT, indirect=True)
async def test_a_dead_letter_holds_the_key_that_its_row_was_published_with(
    box: Box, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    """G4 with ``hold_key``: whatever the transform makes of the key."""
    async with box.shut() as shut:

        def transform(message: OutboxMessage) -> Forward:
            number = int(message.body)
            return Forward(to=shut.address if number == 4 else None, key=f"other-{number}" if number % 2 else None)

        ids = await publishing.many(Outgoing(b"%d" % n, key="held" if n % 2 == 0 else "free") for n in range(12))
        broker.forwarder(
            "orders", to=box.publisher(), hold_key=True, transform=transform, retry_strategy=NoRetry(), lanes=1
        )
        await broker.start()
        await eventually(lambda: _are_dead(broker, 1), within=10)
        await eventually(lambda: _has_only(table, 4), within=10)
        received = await box.received(8)
        assert {message.row_id for message in received} == {ids[n] for n in range(12) if n % 2 or n < 4}
        assert {message.key for message in received} == {None, *(f"other-{n}" for n in range(1, 12, 2))}
        await shut.open()
        await broker.dead_letters.replay(key="held")
        await eventually(table.is_empty, within=10)
        received = await box.received(11)
    assert len(received) == len(without_repeats(received)) == 11
    assert {message.row_id for message in received} == {*ids} - {ids[4]}


def _check_order_of(messages: Sequence[Received]) -> None:
    """Of each place, since what is in two places has no order that could be seen."""
    for place in {message.place for message in messages}:
        ids = [message.row_id for message in messages if message.place == place]
        assert ids == sorted(ids)


async def _has_only(table: Table, count: int) -> bool:
    return await table.count() == count


async def _were_refused(table: Table, count: int) -> bool:
    return await table.count("attempts_count >= 2") == count


async def _are_dead(broker: OutboxBroker, count: int) -> bool:
    return await broker.dead_letters.count() == count


@pytest.mark.parametrize("box", ["redis-stream"], indirect=True)
async def test_what_is_stored_of_a_failed_hand_over_is_what_the_application_says(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table
) -> None:
    def transform(message: OutboxMessage) -> Forward | None:
        raise ValueError(message.body)

    broker = make_broker(exception_renderer=lambda error: type(error).__name__)
    broker.forwarder("orders", to=box.publisher(), transform=transform, retry_strategy=NoRetry())
    await publishing.one(b"alice")
    await broker.start()
    await eventually(lambda: table.count("failed_at IS NOT NULL"))
    [row] = await table.rows()
    assert row.last_exception == "ValueError"
