"""G6, G7: rows of killed, frozen and slow processes."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import OutboxBroker
from integration.faults.processes import run_python

from .conftest import MakeBroker
from .observing import Inbox, LogLines, Table, eventually, watched_machine

WORKER = "integration.broker.worker"
LEASE_SECONDS = 2.0
"""So long that a machine that stalls for a moment does not lose one."""


async def test_g6_rows_of_a_killed_process_are_finished_by_another_within_2_s(
    broker: OutboxBroker, session: AsyncSession, table: Table, inbox: Inbox, database_url: str
) -> None:
    @broker.subscriber("orders", max_workers=8)
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.publish_batch(*range(6), queue="orders", session=session)
    await session.commit()
    env = {"DATABASE_URL": database_url, "HANDLER_SECONDS": "60", "WORKERS": "6"}
    async with run_python("-m", WORKER, env=env) as child:
        await eventually(lambda: sum("began" in line for line in child.lines) == 6)
        await broker.start()
        # The other process is awake and has looked in vain before the kill.
        await asyncio.sleep(0.5)
        assert not inbox.bodies
        async with watched_machine() as machine:
            killed = time.monotonic()
            await child.kill()
            await inbox.wait_for(6, within=15)
    seconds = inbox.times[-1] - killed
    print(
        f"G6: taken over and handled {seconds:.2f} s after kill -9, the machine's worst lag {machine.worst_lag:.2f} s"
    )
    assert seconds - machine.worst_lag < 2.0
    assert inbox.counts == dict.fromkeys(range(6), 1)
    await eventually(table.is_empty)


async def test_g7_a_handler_of_three_lease_times_runs_once(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    """Another broker is idle all the while and would take the row if its lease ran out."""
    for number in range(2):
        broker = make_broker()

        @broker.subscriber("orders", lease_ttl_seconds=LEASE_SECONDS)
        async def handle(body: str, number: int = number) -> None:
            inbox.add(body)
            await asyncio.sleep(3 * LEASE_SECONDS)

        await broker.start()
    await broker.publish("x", queue="orders", session=session)
    await session.commit()
    await inbox.wait_for(1)
    await eventually(table.is_empty, within=3 * LEASE_SECONDS + 5)
    assert inbox.bodies == ["x"]
    assert time.monotonic() - inbox.times[0] > 2.9 * LEASE_SECONDS


async def test_g7_a_frozen_holder_that_wakes_up_changes_nothing(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox, database_url: str
) -> None:
    """Its connections stay open, so that only the lease's time can free the row; its late ack must find nothing."""
    log = LogLines()
    broker = make_broker(logger=log)
    gate = asyncio.Event()

    @broker.subscriber("orders", lease_ttl_seconds=30)
    async def handle(body: int) -> None:
        inbox.add(body)
        await gate.wait()

    await broker.publish_batch(7, queue="orders", session=session)
    await session.commit()
    env = {"DATABASE_URL": database_url, "HANDLER_SECONDS": "0.6", "LEASE_SECONDS": str(LEASE_SECONDS)}
    async with run_python("-m", WORKER, env=env) as child:
        await child.wait_for_line("began 7")
        child.pause()
        frozen = time.monotonic()
        await broker.start()
        await inbox.wait_for(1, within=10)
        print(f"G7: taken over {inbox.times[0] - frozen:.2f} s after SIGSTOP, lease {LEASE_SECONDS:g} s")
        await asyncio.sleep(max(0.0, 1.0 + LEASE_SECONDS - (time.monotonic() - frozen)))
        child.resume()
        await child.wait_for_line("ended 7")
        assert await child.terminate() == 0, "it has written its ack, or given up, before it ends"
        (row,) = await table.rows()
        assert (row.deliveries_count, row.attempts_count, row.failed_at) == (2, 0, None), "the row is still held here"
        assert row.acquired_token is not None
        gate.set()
        await eventually(table.is_empty)
    assert inbox.bodies == [7]
    assert not log.containing("lost")
