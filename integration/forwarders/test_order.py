"""G4: the order of each key, and that nothing else has to wait. G11: poison stalls nothing."""

import asyncio
import random

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConstantRetry, OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.kinds import BOXES, REAL, SERVERS
from integration.destinations.received import check_complete, check_order

from .carriers import Carrier
from .carrying import Publishing, all_failed
from .conftest import MakeBroker

LIMITED = [kind for kind in SERVERS if BOXES[kind].too_large is not None]
REFUSING = [kind for kind in SERVERS if BOXES[kind].can_refuse]


@pytest.mark.parametrize("box", [*REAL, "memory"], indirect=True)
async def test_keys_keep_their_order_while_rows_are_published(box: Box, carrier: Carrier) -> None:
    """Through two brokers, as in two processes, where rows are in a database."""
    draw = random.Random(4)
    ids: list[int] = []
    for _ in range(2 if box.is_server else 1):
        await carrier.forward(["orders", "refunds"], lanes=3, batch_size=50)
    await carrier.go()
    for number in range(20):
        messages = [Outgoing(b"%d" % number, key=f"key-{draw.randrange(40)}") for _ in range(50)]
        # One queue only for each key: between queues there is no order.
        for queue, parity in (("orders", 0), ("refunds", 1)):
            ids += await carrier.publish([m for m in messages if int(m.key[4:]) % 2 == parity], queue=queue)
    await carrier.drained()
    received = await box.received(len(ids))
    assert len(received) == len(ids)
    check_complete(received, ids)


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_a_hot_key_keeps_its_order(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table
) -> None:
    # 2.8 MB: several batches, frames or transactions in one hand-over, several hand-overs.
    ids = await publishing.many(Outgoing(b"h" * 4000, key="hot") for _ in range(700))
    ids += await publishing.many(Outgoing(b"c", key=f"cold-{number}") for number in range(50))
    for _ in range(2):
        broker = make_broker()
        broker.forwarder("orders", to=box.publisher())
        await broker.start()
    await eventually(table.is_empty, within=20)
    check_complete(await box.received(len(ids)), ids)


@pytest.mark.parametrize("box", REFUSING, indirect=True)
async def test_a_refused_row_holds_back_its_own_key_only(
    box: Box, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    publisher = box.publisher(**box.options_that_refuse("late", times=2))
    retry = ConstantRetry(delay_seconds=0.5)
    broker.forwarder("orders", to=publisher, lanes=1, retry_strategy=retry)
    ids = await publishing.many(Outgoing(b"", key=key) for key in ["late", "late", "soon", "late", "soon"])
    await broker.start()
    await eventually(table.is_empty, within=10)
    received = await box.received(len(ids))
    check_complete(received, ids)
    assert len(received) == len(ids)


@pytest.mark.parametrize("box", LIMITED, indirect=True)
async def test_poison_goes_to_the_dead_letters_and_nothing_passes_it_before(
    box: Box, make_broker: MakeBroker, dlq_table: SqlTable, publishing: Publishing, table: Table
) -> None:
    broker = make_broker(dlq_table=dlq_table)
    broker.forwarder("orders", to=box.publisher(), batch_size=200)
    poisoned = (13, 50, 51, 52, 99)
    messages = [Outgoing(b"x" * 500, key=f"key-{number % 7}", headers={"x": "y"}) for number in range(100)]
    for number in poisoned:
        messages[number] = Outgoing(box.too_large, key=messages[number].key, headers={"x": "y"})
    ids = await publishing.many(messages)
    await broker.start()
    await eventually(table.is_empty, within=20)
    dead = await table.rows("outbox_dlq")
    assert {row.id for row in dead} == {ids[number] for number in poisoned}
    for row in dead:
        assert row.failure_reason == "too_large"
        assert bytes(row.payload) == box.too_large
        assert row.headers["x"] == "y"
        assert row.last_exception
    check_complete(await box.received(95), [row_id for n, row_id in enumerate(ids) if n not in poisoned])


@pytest.mark.parametrize("box", LIMITED[:1], indirect=True)
async def test_without_a_dead_letter_table_poison_is_parked_in_place(
    box: Box, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=box.publisher())
    ids = await publishing.many([Outgoing(b"1", key="k"), Outgoing(box.too_large, key="k"), Outgoing(b"2", key="k")])
    await broker.start()
    await eventually(lambda: all_failed(table), within=10)
    [parked] = await table.rows()
    assert (parked.id, parked.failure_reason, parked.attempts_count) == (ids[1], "too_large", 1)
    assert [message.body for message in await box.received(2)] == [b"1", b"2"]


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_brokers_that_come_and_go_keep_order_and_repeat_nothing(
    *, box: Box, database_url: str, outbox_table: SqlTable, publishing: Publishing, table: Table
) -> None:
    """Places and connections change hands all the time."""
    engine = create_async_engine(database_url)
    ids: list[int] = []

    def make() -> OutboxBroker:
        broker: OutboxBroker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
        broker.forwarder("orders", to=box.publisher(), batch_size=20)
        return broker

    async def publish() -> None:
        for number in range(40):
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + k) % 11}") for k in range(25)))

    async def come_and_go() -> None:
        for _ in range(3):
            broker = make()
            await broker.start()
            seen = len(ids)
            await eventually(lambda seen=seen: len(ids) >= min(seen + 100, 1000), within=20)
            await broker.stop()

    await asyncio.gather(publish(), come_and_go(), come_and_go())
    last = make()
    await last.start()
    await eventually(table.is_empty, within=20)
    await last.stop()
    await engine.dispose()
    received = await box.received(len(ids))
    assert len(received) == len(ids), "a clean stop repeats nothing"
    check_order(received)
    assert sorted(message.row_id for message in received) == sorted(ids)
