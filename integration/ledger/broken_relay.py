"""A relay that is wrong on purpose: it carries rows from the outbox to a Redis stream, and commits one fault.

What the ledger says of it shows that the ledger can see.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from faststream.redis.parser import BinaryMessageFormatV1
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.servers.redis import RedisServer


@dataclass(frozen=True)
class Parcel:
    """What the relay sends for a row."""

    identity: str
    key: str | None
    body: bytes


Fault = Callable[[list[Parcel]], list[Parcel]]


def nothing(parcels: list[Parcel]) -> list[Parcel]:
    return parcels


def lose_one(parcels: list[Parcel]) -> list[Parcel]:
    return parcels[:3] + parcels[4:]


def repeat_one(parcels: list[Parcel]) -> list[Parcel]:
    return [*parcels, parcels[3]]


def swap_two_of_a_key(parcels: list[Parcel]) -> list[Parcel]:
    later = next(n for n in range(4, len(parcels)) if parcels[n].key == parcels[3].key)
    parcels[3], parcels[later] = parcels[later], parcels[3]
    return parcels


def change_a_body(parcels: list[Parcel]) -> list[Parcel]:
    return [*parcels[:3], replace(parcels[3], body=parcels[3].body + b" "), *parcels[4:]]


def change_a_key(parcels: list[Parcel]) -> list[Parcel]:
    return [*parcels[:3], replace(parcels[3], key="another"), *parcels[4:]]


def send_before_the_commit(parcels: list[Parcel]) -> list[Parcel]:
    """As a relay would that hears of a message in the application, and not from the table."""
    return [*parcels, Parcel("rolled back", None, b"")]


async def carry(engine: AsyncEngine, server: RedisServer, stream: str, fault: Fault) -> None:
    """Send all rows in the order of their ids, with the fault, and delete them."""
    async with engine.begin() as connection, server.client() as client:
        rows = await connection.execute(
            text("WITH gone AS (DELETE FROM outbox RETURNING *) SELECT * FROM gone ORDER BY id")
        )
        parcels = [Parcel(row.idempotency_key, row.key, row.payload) for row in rows]
        for parcel in fault(parcels):
            headers = {"idempotency-key": parcel.identity} | ({"outbox-key": parcel.key} if parcel.key else {})
            envelope = await BinaryMessageFormatV1.encode(
                message=parcel.body, reply_to=None, headers=headers, correlation_id="none"
            )
            await client.xadd(stream, {"__data__": envelope})
