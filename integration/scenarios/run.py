"""What every scenario has: a load, the book, a look at the outbox, and the ledger's judgement."""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.broker.observing import Table
from integration.destinations.received import Received
from integration.ledger.book import Book
from integration.ledger.ledger import Findings, audit

from .load import Load

QUICK_SECONDS = 240
"""For a test that takes seconds: servers start within it, and the machine may be busy."""
NOT_EMPTY = "SELECT 1 FROM outbox LIMIT 1"


def forms(quick: Any, long: Any, *, timeout: float) -> pytest.MarkDecorator:
    """Give a test its two sizes as the argument `plan`; `timeout` seconds for the long one."""
    return pytest.mark.parametrize(
        "plan",
        [
            pytest.param(quick, id="quick", marks=pytest.mark.timeout(QUICK_SECONDS)),
            pytest.param(long, id="long", marks=[pytest.mark.long, pytest.mark.timeout(timeout)]),
        ],
    )


class Run:
    """A scenario on a database of its own."""

    def __init__(self, engine: AsyncEngine, outbox_table: SqlTable) -> None:
        self.engine = engine
        self.book = Book(engine)
        self.table = Table(engine)
        self._outbox_table = outbox_table

    def load(self, seed: int, **options: Any) -> Load:
        return Load(self.engine, self._outbox_table, seed=seed, **options)

    async def caught_up(self, *, within: float) -> float:
        """Wait until every row that is there now is gone; returns the seconds it took."""
        [last] = await self.table.query("SELECT coalesce(max(number), 0) AS number FROM book")
        left = "SELECT 1 FROM outbox JOIN book ON identity = idempotency_key WHERE number <= :number LIMIT 1"
        return await self._until_none(left, within, number=last.number)

    async def drained(self, *, within: float) -> float:
        """Wait until the outbox is empty; returns the seconds it took."""
        return await self._until_none(NOT_EMPTY, within)

    async def is_empty(self) -> bool:
        # Not counted: many rows may be there, and the relays need the processor.
        return not await self.table.query(NOT_EMPTY)

    async def _until_none(self, rows: str, within: float, **values: Any) -> float:
        began = time.monotonic()
        while await self.table.query(rows, **values):
            seconds = time.monotonic() - began
            assert seconds < within, f"{await self.table.count()} rows are left after {within:g} s"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def audit(self, arrived: Sequence[Received], *, dead: Collection[str] = ()) -> Findings:
        return audit(await self.book.messages(), arrived, dead=dead)
