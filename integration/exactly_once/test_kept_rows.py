"""A row that is delivered, and that the database refuses to delete, is not sent again by the next process."""

import asyncio

import pytest
from sqlalchemy import text

from faststream_outbox.forwarders.forwarder import OutboxForwarder

from .shop import Shop

FUNCTION = """
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {way}; END $$
"""
TRIGGER = """
CREATE TRIGGER keep BEFORE DELETE ON outbox FOR EACH ROW WHEN (OLD.id % 20 = 7) EXECUTE FUNCTION keep()
"""
WAYS = {"refused": "RAISE EXCEPTION 'never this one'", "left out in silence": "RETURN NULL"}


async def run(shop: Shop, *statements: str) -> None:
    async with shop.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def until_all_others_are_gone(shop: Shop, forwarder: OutboxForwarder) -> None:
    async with asyncio.timeout(30):
        while await shop.value("SELECT count(*) FROM outbox WHERE id % 20 <> 7"):
            await asyncio.sleep(0.02)
        while forwarder.set_aside < await shop.rows():
            await asyncio.sleep(0.02)


async def let_processes_follow(shop: Shop, way: str) -> None:
    """Let two processes hand rows over while the table keeps some of them, and a third one afterwards."""
    await run(shop, FUNCTION.format(way=way), TRIGGER)
    for _ in range(2):
        broker, forwarder = shop.relay(batch_size=50)
        await broker.start()
        await shop.publish(100)
        await until_all_others_are_gone(shop, forwarder)
        # By now there are positions of this process, and what follows goes behind the rows that were kept.
        await shop.publish(100)
        await until_all_others_are_gone(shop, forwarder)
        await broker.stop()
        assert (await forwarder.status()).maybe_repeated == 0
    await run(shop, "DROP FUNCTION keep CASCADE")
    broker, forwarder = shop.relay(batch_size=50)
    await broker.start()
    await shop.until_empty()
    await shop.publish(50)
    await shop.until_empty()
    await shop.check()
    assert (await forwarder.status()).maybe_repeated == 0


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_row_that_the_table_keeps_is_sent_once(shop: Shop, way: str) -> None:
    await let_processes_follow(shop, way)
