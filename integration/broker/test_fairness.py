"""Nothing starves: neither new messages behind retries, nor retries behind new messages."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import ConstantRetry, OutboxBroker

from .observing import Inbox, eventually

WORKERS = 4


async def test_a_storm_of_retries_keeps_no_new_message_waiting(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    failures = 0

    @broker.subscriber("q", max_workers=WORKERS, retry_strategy=ConstantRetry(delay_seconds=0.01, max_attempts=10**6))
    async def handle(body: str) -> None:
        nonlocal failures
        if body == "bad":
            failures += 1
            await asyncio.sleep(0.005)
            raise ConnectionError("the partner is down")
        inbox.add(body)

    await broker.publish_batch(*["bad"] * 300, queue="q", session=session)
    await session.commit()
    await broker.start()
    # All of them have failed, and a round takes so long that there is always one whose time has come.
    await eventually(lambda: failures > 400, within=20)
    for number in range(40):
        await broker.publish(f"good {number}", queue="q", session=session)
    await session.commit()
    before = failures
    await inbox.wait_for(40, within=20)
    print(f"40 new messages were handled among {failures - before} failures of 300 others")
    assert failures - before < 300, "half of what is claimed is new"


async def test_new_messages_without_end_keep_no_retry_waiting(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    handled = 0

    @broker.subscriber("q", max_workers=WORKERS, retry_strategy=ConstantRetry(delay_seconds=0.01, max_attempts=10**6))
    async def handle(body: str) -> None:
        nonlocal handled
        handled += 1
        await asyncio.sleep(0.005)
        if body == "retried" and inbox.counts["failed"] < 10:
            inbox.add("failed")
            raise ConnectionError("the partner is down")
        if body == "retried":
            inbox.add("retried")

    await broker.publish_batch(*["retried"] * 10, *["new"] * 2000, queue="q", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: inbox.counts["retried"] == 10, within=20)
    print(f"10 retries were handled among {handled} of 2,000 messages")
    assert handled < 500
