"""The store in memory keeps positions as PostgreSQL does."""

import pytest

from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._values.shard import Shard
from tests.store.suite.positions import Positions
from tests.store.suite.subject import draft, shards


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.insert(None, draft(key="k"))
    return store


@pytest.fixture
async def shard(store: MemoryStore) -> Shard:
    async with store.hand_over(shards(), limit=1) as hand_over:
        assert hand_over is not None
        return hand_over.shards[0]


class TestMemoryPositions(Positions):
    pass
