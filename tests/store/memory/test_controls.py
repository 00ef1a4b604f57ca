"""The store in memory keeps pauses as PostgreSQL does."""

import pytest

from faststream_outbox._store.memory.controls import MemoryControls
from faststream_outbox._store.memory.store import MemoryStore
from tests.store.suite.controls import Controls, Open
from tests.store.suite.subject import ME


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def controls(store: MemoryStore) -> MemoryControls:
    return store.controls


@pytest.fixture
def listening(store: MemoryStore) -> Open:
    return lambda: store.listen(ME)


class TestMemoryControls(Controls):
    pass
