"""The store in memory can be looked at as every store."""

import pytest

from faststream_outbox._store.memory.onlooker import MemoryOnlooker
from tests.store.looks import LookedAt, LooksSuite
from tests.store.memory.test_store import MemorySubject


@pytest.fixture
def looked_at() -> LookedAt:
    subject = MemorySubject()
    subject.onlooker = MemoryOnlooker(subject.memory)  # type: ignore[attr-defined]
    return subject  # type: ignore[return-value]


class TestMemoryLooks(LooksSuite):
    pass
