"""Hands parcels to a destination as a lane does, without an outbox around it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.factory import create_destinations
from faststream_outbox.forwarders.kinds import LaneDestination

_ids = iter(range(1, 10**9))

PAUSE_SECONDS = 0.02


def parcel(
    address: str | None = None, *, key: str | None = "k", payload: bytes = b"", headers: dict[str, str] | None = None
) -> Parcel:
    """A row of the queue "orders" with an id and an idempotency key of its own."""
    number = next(_ids)
    row = OutboxRow(
        id=number,
        queue="orders",
        key=key,
        idempotency_key=f"key-{number}",
        payload=payload,
        headers=headers or {},
        attempts_count=0,
        deliveries_count=0,
        created_at=datetime.now(UTC),
    )
    return Parcel(row, address)


@asynccontextmanager
async def destination(publisher: Any, *, send_timeout: float = 5.0, **options: Any) -> AsyncIterator[LaneDestination]:
    """The destination of one lane, closed afterwards."""
    async with destinations(publisher, lanes=1, send_timeout=send_timeout, **options) as [made]:
        yield made


@asynccontextmanager
async def destinations(publisher: Any, **options: Any) -> AsyncIterator[Sequence[LaneDestination]]:
    """Those of several lanes."""
    lanes = create_destinations(publisher, lambda *_: None, **options).lanes
    try:
        yield lanes
    finally:
        for lane in lanes:
            await lane.close()


async def carry(to: LaneDestination, parcels: Sequence[Parcel], *, within: float = 10.0) -> list[Verdict]:
    """Hand over until nothing is unsent, which gives the last verdict on each."""
    verdicts: dict[int, Verdict] = {}
    waiting = list(parcels)
    async with asyncio.timeout(within):
        while waiting:
            if await connects(to):
                verdicts |= zip((each.row.id for each in waiting), await to.send(waiting), strict=True)
                waiting = [each for each in waiting if isinstance(verdicts[each.row.id], Unsent)]
            if waiting:
                await asyncio.sleep(PAUSE_SECONDS)
    return [verdicts[each.row.id] for each in parcels]


async def connects(to: LaneDestination) -> bool:
    """Whether a lane would send now."""
    try:
        await to.connect()
    except Exception:  # noqa: BLE001 - as a lane does
        return False
    return True
