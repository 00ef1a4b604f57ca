"""NATS: streams that come and go, limits, addresses, and what JetStream drops as a repeat."""

import asyncio
import contextlib
import logging

import pytest
from faststream.nats import NatsBroker
from nats.js.api import StreamConfig

from faststream_outbox import OutboxBroker, Outgoing
from faststream_outbox._values.outcome import Accepted, Poison, Refused
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.any_broker.destination import PublisherDestination
from faststream_outbox.forwarders.any_broker.nats import NatsOutlet
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.nats import NatsBox
from integration.destinations.received import check_complete, check_order, without_repeats
from integration.forwarders.carrying import Publishing, all_failed, keep_publishing, nothing_is_counted
from integration.forwarders.conftest import MakeBroker
from integration.servers.nats import ANSWER_SECONDS, EmbeddedNats, NatsServer
from tests.forwarders.any_broker.rows import parcel


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_of_the_server_while_rows_flow(
    *,
    killed: bool,
    make_broker: MakeBroker,
    stream: NatsBox,
    embedded: EmbeddedNats,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=stream.publisher(), batch_size=50)
    await broker.start()
    ids: list[int] = []
    restarted = asyncio.Event()

    publisher = asyncio.create_task(keep_publishing(publishing, table, ids, restarted))
    try:
        await eventually(lambda: _got_through(table, ids), within=15)
        await asyncio.to_thread(embedded.process.kill if killed else embedded.stop)
        await eventually(lambda: log.at_least(logging.ERROR), within=15)
        await nothing_is_counted(table)
        await asyncio.to_thread(embedded.start)
    finally:
        restarted.set()
        await publisher
    await eventually(table.is_empty, within=20)
    received = await stream.received(len(ids))
    assert len(received) == len(ids), "JetStream drops repeats"
    check_complete(received, ids)
    check_order(without_repeats(received))
    assert len(log.at_least(logging.ERROR)) <= 2, log.at_least(logging.WARNING)
    await eventually(lambda: log.containing("works again"))
    assert 1 <= len(log.containing("works again")) <= 2


async def _got_through(table: Table, ids: list[int]) -> bool:
    return len(ids) - await table.count() > 50


async def test_a_stream_that_does_not_exist_yet(
    *,
    make_broker: MakeBroker,
    nats_broker: NatsBroker,
    nats_server: NatsServer,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=nats_broker.publisher("not.there.yet", stream="not-there-yet"))
    ids = await publishing.many([Outgoing(b"", key="k")] * 10)
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING), within=20)
    assert "no response from stream" in line
    await asyncio.sleep(1.0)
    await nothing_is_counted(table)
    async with nats_server.client() as client:
        context = client.jetstream(timeout=ANSWER_SECONDS)
        await context.add_stream(StreamConfig("not-there-yet", subjects=["not.there.>"]))
        try:
            await eventually(table.is_empty, within=10)
            messages = await nats_server.read_stream("not-there-yet")
        finally:
            await broker.stop()
            await context.delete_stream("not-there-yet")
    assert [int(message.headers["outbox-id"]) for message in messages] == ids
    assert len(log.at_least(logging.WARNING)) == 1


async def test_one_idempotency_key_for_two_queues_or_subjects_is_no_repeat(
    broker: OutboxBroker, nats_broker: NatsBroker, stream: NatsBox, publishing: Publishing, table: Table
) -> None:
    """A stream drops what has an id that it knows, and takes many subjects."""
    forwarders = [
        broker.forwarder(queue, to=nats_broker.publisher(f"{stream.name}.{subject}", stream=stream.name))
        for queue, subject in (("orders", "orders"), ("emails", "emails"), ("faxes", "emails"))
    ]
    for queue in ("orders", "emails", "faxes"):
        await publishing.one(queue, queue=queue, idempotency_key="order-1/ü")
    await broker.start()
    await eventually(table.is_empty)
    assert sorted(await stream.bodies(3)) == [b"emails", b"faxes", b"orders"]
    for queue in ("orders", "emails", "faxes"):
        await publishing.one(queue, queue=queue, idempotency_key="order-1/ü")
    await eventually(table.is_empty)
    assert len(await stream.bodies(3)) == 3, "these are repeats"
    for forwarder in forwarders:
        status = await forwarder.status()
        assert (status.sent, status.deduplicated) == (1, 1)


async def test_headers_count_for_the_servers_limit(
    broker: OutboxBroker, nats_broker: NatsBroker, nats_server: NatsServer, publishing: Publishing, table: Table
) -> None:
    """Over a message that is too large only with its headers, NATS closes the connection."""
    with nats_server.stream() as name:
        broker.forwarder("orders", to=nats_broker.publisher(name, stream=name))
        limit = 1024 * 1024
        almost = b"x" * (limit - 2000)
        messages = [Outgoing(almost, headers={"h": "y" * size}, key="k") for size in (10, 2500, 20)]
        ids = await publishing.many(messages)
        await broker.start()
        await eventually(lambda: all_failed(table), within=10)
        [parked] = await table.rows()
        assert (parked.id, parked.failure_reason) == (ids[1], "too_large")
        received = await nats_server.read_stream(name)
        assert [int(message.headers["outbox-id"]) for message in received] == [ids[0], ids[2]]


async def test_what_is_just_within_the_limit_is_sent(
    nats_broker: NatsBroker, nats_server: NatsServer, publishing: Publishing
) -> None:
    """To the byte: what we count is what the server counts."""
    with nats_server.stream() as name:
        publisher = nats_broker.publisher(name, stream=name, headers={"team": "shop"}, reply_to="answers")
        destination = PublisherDestination(NatsOutlet(publisher), 5.0)
        await destination.connect()
        sizes = range(1024 * 1024 - 700, 1024 * 1024 - 200)
        fits = 0
        low, high = sizes.start, sizes.stop
        while low < high:
            middle = (low + high) // 2
            [verdict] = await destination.send([parcel(middle, payload=b"x" * middle)])
            if isinstance(verdict, Accepted):
                fits, low = middle, middle + 1
            else:
                assert isinstance(verdict, Poison)
                high = middle
        await destination.close()
        [largest] = [each for each in await nats_server.read_stream(name) if len(each.data) == fits]
        size = fits + 12 + sum(len(name) + len(value) + 4 for name, value in (largest.headers or {}).items())
        assert size == 1024 * 1024


@pytest.mark.parametrize("header", [{"X-Größe": "1"}, {"x": " blank"}, {"x": "two\nlines"}], ids=repr)
async def test_headers_that_nats_would_change_are_poison(
    header: dict[str, str], broker: OutboxBroker, stream: NatsBox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=stream.publisher())
    ids = await publishing.many([Outgoing(b"1", key="k"), Outgoing(b"2", key="k", headers=header), Outgoing(b"3")])
    await broker.start()
    await eventually(lambda: all_failed(table), within=10)
    [parked] = await table.rows()
    assert (parked.id, parked.failure_reason) == (ids[1], "invalid")
    assert sorted(await stream.bodies(2)) == [b"1", b"3"]


async def test_an_address_of_a_rows_own_is_its_subject(stream: NatsBox) -> None:
    destination = PublisherDestination(NatsOutlet(stream.publisher()), 5.0)
    await destination.connect()
    parcels: list[Parcel] = [
        parcel(1),
        parcel(2, address=f"{stream.name}.second"),
        parcel(3, address="nowhere"),
        parcel(4, address="two words"),
        parcel(5),
    ]
    verdicts = await destination.send(parcels)
    await destination.close()
    assert [type(verdict) for verdict in verdicts] == [Accepted, Accepted, Refused, Poison, Accepted]
    subjects = {int(m.headers["outbox-id"]): m.subject for m in await stream.server.read_stream(stream.name)}
    assert subjects == {1: stream.name, 2: f"{stream.name}.second", 5: stream.name}


async def test_an_attempt_to_reconnect_that_outlives_its_client_ends_with_it(stream: NatsBox) -> None:
    """nats-py waits with ``wait_for``, which may lose a cancellation that comes just when the wait ends."""
    outlet = NatsOutlet(stream.publisher())
    destination = PublisherDestination(outlet, 5.0)
    await destination.connect()

    async def lose_a_cancellation() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    reconnecting = outlet.broker.connection._reconnection_task = asyncio.create_task(lose_a_cancellation())
    await asyncio.sleep(0)
    await destination.close()
    assert reconnecting.cancelled()


async def test_core_nats_passes_on_what_somebody_listens_to(
    broker: OutboxBroker, nats_broker: NatsBroker, nats_server: NatsServer, publishing: Publishing, table: Table
) -> None:
    async with nats_server.client() as client:
        listening = await client.subscribe("news.today")
        await client.flush()
        broker.forwarder("orders", to=nats_broker.publisher("news.today"), allow_lossy=True)
        ids = await publishing.many(Outgoing(b"%d" % number, key="k") for number in range(50))
        await broker.start()
        await eventually(table.is_empty)
        messages = [await listening.next_msg(timeout=5) for _ in ids]
    assert [message.data for message in messages] == [b"%d" % number for number in range(50)]
    assert all("Nats-Msg-Id" not in message.headers for message in messages)
