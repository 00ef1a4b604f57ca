"""A row over which Redis closes the connection, and rows that were only in flight when it broke."""

import asyncio

from faststream.redis import RedisBroker

from faststream_outbox import Outgoing
from faststream_outbox._values.outcome import Accepted, Poison, Reason
from faststream_outbox.forwarders.suspects import ConnectionBrokenError
from integration.broker.observing import Table, eventually
from integration.destinations.received import check_complete, check_order, without_repeats
from integration.destinations.redis import StreamBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing, lanes_at_work
from integration.forwarders.conftest import MakeBroker
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.redis import EmbeddedRedis

KILLER = b"x" * 1_500_000
"""More than the least that client-query-buffer-limit can be set to. Redis then closes the connection without a word."""


async def test_a_row_over_which_redis_closes_the_connection_is_found_and_no_other_dies(
    own_redis: EmbeddedRedis, own_box: StreamBox
) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("client-query-buffer-limit", "1mb")
    parcels = [parcel(key=f"key-{n % 3}") for n in range(30)]
    parcels[10] = parcel(key="key-1", payload=KILLER)
    async with destination(RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name)) as to:
        verdicts = await carry(to, parcels)
    poison = verdicts.pop(10)
    assert isinstance(poison, Poison)
    assert poison.reason == Reason.INVALID
    assert isinstance(poison.exception, ConnectionBrokenError)
    assert set(verdicts) == {Accepted()}
    del parcels[10]
    check_complete(await own_box.read(), [each.row.id for each in parcels])


async def test_such_a_row_is_parked(
    *, make_broker: MakeBroker, own_redis: EmbeddedRedis, own_box: StreamBox, publishing: Publishing, table: Table
) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("client-query-buffer-limit", "1mb")
    broker = make_broker()
    broker.forwarder("orders", to=RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name))
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 9}") for n in range(100))
    # More than `publish` takes by default.
    await table.query("UPDATE outbox SET payload = :killer WHERE id = :id", killer=KILLER, id=ids[44])
    await broker.start()
    await eventually(lambda: _all_but_one_are_gone(table), within=20)
    [parked] = await table.rows()
    assert (parked.id, parked.failure_reason) == (ids[44], "invalid")
    assert "ConnectionBrokenError" in parked.last_exception
    check_complete(await own_box.read(), {*ids} - {parked.id})


async def _all_but_one_are_gone(table: Table) -> bool:
    rows = await table.rows()
    return len(rows) == 1 and rows[0].failed_at is not None


async def _both_lanes_are_at_work(table: Table) -> bool:
    return await lanes_at_work(table) == 2


async def _no_lane_is_at_work(table: Table) -> bool:
    return not await lanes_at_work(table)


async def _nothing_waits(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def test_connections_that_break_again_and_again_poison_nothing(
    *,
    make_broker: MakeBroker,
    proxied_redis: RedisBroker,
    redis_proxy: TcpProxy,
    box: StreamBox,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=proxied_redis.publisher(stream=box.name), batch_size=10)
    await broker.start()
    # So far away that rows are in flight when it breaks.
    redis_proxy.delay(0.02)
    ids: list[int] = []
    for _ in range(5):
        # Of so few keys that the same rows are in flight again.
        ids += await publishing.many(Outgoing(b"", key=f"key-{n % 2}") for n in range(100))
        for _ in range(2):
            # A break that meets a lane while it connects would be taken for an outage.
            await eventually(lambda: _both_lanes_are_at_work(table), within=15)
            redis_proxy.reset()
            await eventually(lambda: _no_lane_is_at_work(table), within=15)
        # All get through, so that none can meet a third break.
        await eventually(lambda: _nothing_waits(table), within=30)
        assert await table.is_empty()
    check_complete(await box.read(), ids)


async def test_a_server_that_is_killed_and_back_before_anybody_looks_accuses_nobody(
    own_redis: EmbeddedRedis, own_box: StreamBox
) -> None:
    """As a container that is started again at once: whoever connects then finds it there at the first attempt."""
    async with (
        TcpProxy("127.0.0.1", own_redis.port.number) as proxy,
        destination(RedisBroker(f"redis://{proxy.address}", logger=None).publisher(stream=own_box.name)) as to,
    ):
        innocent = parcel()
        for _ in range(6):
            await to.connect()
            # It dies with the row in its hands.
            proxy.black_hole()
            sending = asyncio.create_task(to.send([innocent]))
            await asyncio.sleep(0.05)
            own_redis.process.kill()
            await proxy.restore()
            [verdict] = await sending
            assert isinstance(verdict.exception, ConnectionBrokenError)  # type: ignore[union-attr]
            await asyncio.to_thread(own_redis.start)
        assert await carry(to, [innocent]) == [Accepted()]


async def test_a_server_that_is_restarted_under_load_accuses_nobody(
    *, make_broker: MakeBroker, own_redis: EmbeddedRedis, own_box: StreamBox, publishing: Publishing, table: Table
) -> None:
    broker = make_broker()
    to = RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name)
    broker.forwarder("orders", to=to, batch_size=20)
    await broker.start()
    ids: list[int] = []
    for restart in range(6):
        for _ in range(10):
            ids += await publishing.many(Outgoing(b"", key=f"key-{n % 20}") for n in range(100))
        own_redis.process.kill() if restart % 2 else await asyncio.to_thread(own_redis.stop)
        await asyncio.to_thread(own_redis.start)
    await eventually(lambda: _nothing_waits(table), within=60)
    assert await table.is_empty()
    messages = await own_box.read()
    check_complete(messages, ids)
    check_order(without_repeats(messages))
