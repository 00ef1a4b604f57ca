"""What the suite says of rows that are taken holds where each look begins as far on as a survey permits."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres import floors, leaps
from faststream_outbox._store.postgres.handing_over import PostgresHandOver
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.protocol import Claim
from faststream_outbox._values.shard import Shard
from tests.store.suite.fairness import Fairness
from tests.store.suite.hand_overs import HandOvers
from tests.store.suite.held_keys import HeldKeys
from tests.store.suite.order import Order
from tests.store.suite.surveys import Surveys
from tests.store.suite.takers import Takers

from .subject import PostgresSubject


class SurveyedStore(PostgresStore):
    """Knows before each look all that can be known of the rows that are there."""

    async def claim(self, shards: Sequence[Shard], **options: Any) -> Claim:
        await self._learn(shards)
        return await super().claim(shards, **options)

    @asynccontextmanager
    async def hand_over(self, shards: Sequence[Shard], **options: Any) -> AsyncIterator[PostgresHandOver | None]:
        await self._learn(shards)
        async with super().hand_over(shards, **options) as taken:
            yield taken

    async def _learn(self, shards: Sequence[Shard]) -> None:
        async with self._engine.connect() as connection:
            highest = (await connection.execute(text("SELECT max(id) FROM outbox"))).scalar_one()
        # The first survey forgets what was seen in another run of the server.
        for _ in range(4):
            self._floors.saw(highest or 0)
            await self.survey(shards)


class TestSurveyed(HandOvers, Takers, Order, HeldKeys, Fairness, Surveys):
    @pytest.fixture(autouse=True)
    def always(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Few rows are worth a leap; a survey goes on from floors and edges."""
        monkeypatch.setattr(leaps, "WORTH_ROWS", 1)
        monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)

    @pytest.fixture
    def subject(self, engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
        subject = PostgresSubject(engine, outbox_table, None)
        subject.store = SurveyedStore(engine, outbox_table)
        return subject
