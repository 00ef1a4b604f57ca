"""The store in memory passes the suite of all stores."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import settings

from faststream_outbox._store.memory.dead_letters import MemoryDeadLetters
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._store.memory.table import MemoryTransaction
from tests.store.machine import StoreMachine
from tests.store.suite import Died, Stored, StoreSuite, Subject, claim, draft, ids


class MemorySubject:
    parks = True
    keeps_exceptions = False

    def __init__(self) -> None:
        self.store = self.writer = self.memory = MemoryStore()
        self.dead_letters = MemoryDeadLetters(self.memory)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        with self.memory.transaction() as transaction:
            yield transaction

    async def rows(self) -> dict[int, Stored]:
        alive = [record for record in self.memory._records.values() if record.dead is None]
        return {r.row.id: Stored(r.row, r.shard_number, r.token, r.next_attempt_at) for r in alive}

    async def dead(self) -> dict[int, Died]:
        return {row.id: Died(row, dead.reason, dead.exception) for row, dead in self.memory.dead_letters}


@pytest.fixture
def subject() -> Subject:
    return MemorySubject()


class TestMemory(StoreSuite):
    pass


async def test_without_a_transaction_a_message_is_written_at_once() -> None:
    subject = MemorySubject()
    row_id = subject.memory.insert_sync(None, draft())
    assert ids(await claim(subject)) == [row_id]


async def test_what_tests_of_applications_look_at() -> None:
    store = MemoryStore()
    [ready, waiting] = await store.insert_many(None, [draft(body=b"1"), draft(body=b"2")])
    assert [row.payload for row in store.rows] == [b"1", b"2"]
    assert ids(store.ready_among([ready, waiting])) == [ready, waiting]
    store.forget(ready)
    store.forget(ready)
    assert ids(store.rows) == [waiting]
    assert store.dead_letters == []


@asynccontextmanager
async def opened() -> AsyncIterator[Subject]:
    yield MemorySubject()


class MemoryMachine(StoreMachine):
    open_subject = staticmethod(opened)


class TestLife(MemoryMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
