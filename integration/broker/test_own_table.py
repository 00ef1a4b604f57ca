"""docs/how-to/from-your-own-table.md: its SQL moves the rows of a table like the page's, and they are handled."""

import re
from pathlib import Path

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker

from .observing import eventually

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-your-own-table.md"
BLOCK = re.compile(r"^```sql\n-- (.+?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_rows_are_moved_and_handled(engine: AsyncEngine, outbox_table: Table) -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    async with engine.begin() as connection:
        await connection.execute(text(blocks["old table"]))
        await connection.execute(
            text("""
                INSERT INTO my_outbox (topic, key, payload, sent_at)
                SELECT 'orders', 'k', jsonb_build_object('n', n), CASE WHEN n < 3 THEN now() END
                FROM generate_series(1, 5) AS n
            """)
        )
        for statement in filter(str.strip, blocks["move"].split(";\n")):
            await connection.execute(text(statement))

    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    seen = list[int]()

    @broker.subscriber("orders", max_workers=1)
    async def handle(body: dict[str, int]) -> None:
        seen.append(body["n"])

    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT idempotency_key, key FROM outbox ORDER BY id"))
        assert [*rows] == [(f"my-outbox-{number}", "k") for number in (3, 4, 5)]
        assert await connection.scalar(text("SELECT count(*) FROM my_outbox WHERE sent_at IS NULL")) == 0
    async with broker:
        await broker.start()
        await eventually(lambda: sorted(seen) == [3, 4, 5])
