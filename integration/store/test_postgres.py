"""The store in PostgreSQL passes the suite of all stores, and agrees with the model of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from faststream_outbox._store.postgres.statement_runner import MOST_CALLS
from faststream_outbox._values.outcome import Delivered, Settlement
from faststream_outbox.schema import SHARDS
from tests.store.machine import StoreMachine
from tests.store.suite import StoreSuite, draft, ids, keys_apart, put, shards, shards_of

from .subject import PostgresSubject


class TestPostgres(StoreSuite):
    pass


@pytest.mark.parametrize("dead_letters", ["parked", "moved"])
def test_life(database_url: str, outbox_table: Table, dlq_table: Table, dead_letters: str) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[PostgresSubject]:
        # Each life has an event loop of its own, and an engine belongs to one.
        engine = create_async_engine(database_url, pool_size=1)
        try:
            yield PostgresSubject(engine, outbox_table, dlq_table if dead_letters == "moved" else None)
            async with engine.begin() as connection:
                await connection.execute(text("TRUNCATE outbox, outbox_dlq"))
        finally:
            await engine.dispose()

    class PostgresMachine(StoreMachine):
        open_subject = staticmethod(opened)

    run_state_machine_as_test(
        PostgresMachine,
        settings=settings(
            max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


async def somebody_waits(engine: AsyncEngine) -> None:
    """Return once a session waits for another's lock."""
    async with engine.connect() as watcher, asyncio.timeout(10):
        await watcher.execution_options(isolation_level="AUTOCOMMIT")
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
        while not await watcher.scalar(waiting):
            await asyncio.sleep(0.01)


async def test_g4_a_row_that_a_stranger_has_locked_is_not_passed_by_later_ones_of_its_key(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    first, second = await put(subject, draft(key="k"), draft(key="k"))

    async def take() -> list[int]:
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            assert hand_over is not None
            return ids(hand_over.rows)

    async with engine.connect() as stranger:
        await stranger.execute(text("SELECT FROM outbox WHERE id = :id FOR UPDATE"), {"id": first})
        taking = asyncio.create_task(take())
        await somebody_waits(engine)
        assert not taking.done()
        await stranger.rollback()
    assert await taking == [first, second]


async def test_a_lock_on_the_table_is_told_as_one_where_outcomes_that_are_known_are_to_be_written(
    engine: AsyncEngine, database_url: str, outbox_table: Table
) -> None:
    (known,) = await put(PostgresSubject(engine, outbox_table, None), draft())
    impatient = create_async_engine(database_url, connect_args={"server_settings": {"lock_timeout": "100"}})
    store = PostgresSubject(impatient, outbox_table, None).store
    async with engine.connect() as stranger:
        await stranger.execute(text("LOCK TABLE outbox IN EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError) as caught:
            async with store.hand_over(shards(), limit=10, only=[known]):
                pass
    assert "holds a lock on the table" in store.explain(caught.value).text
    await impatient.dispose()


LATER = "UPDATE outbox SET next_attempt_at = now() + interval '1 hour', last_attempt_at = now() WHERE id = :id"


@pytest.mark.parametrize("breadth", [1, SHARDS])
@pytest.mark.parametrize(
    ("change", "found"), [(LATER, []), ("DELETE FROM outbox WHERE id = :id", [1, 2]), ("SELECT", [0, 1, 2])]
)
async def test_g4_what_a_stranger_makes_of_a_row_while_it_is_waited_for_counts_for_later_ones_of_its_key(
    *, engine: AsyncEngine, outbox_table: Table, breadth: int, change: str, found: list[int]
) -> None:
    """A row that waits from then on holds back its key, although nothing of that was to be seen before."""
    subject = PostgresSubject(engine, outbox_table, None)
    written = await put(subject, *[draft(key="k")] * 3)
    where = await shards_of(subject, written[0])

    async def take() -> list[int]:
        async with subject.store.hand_over(where, limit=10, breadth=breadth) as hand_over:
            assert hand_over is not None
            return ids(hand_over.rows)

    async with engine.connect() as stranger:
        await stranger.execute(text("SELECT FROM outbox WHERE id = :id FOR UPDATE"), {"id": written[0]})
        await stranger.execute(text(change), {"id": written[0]} if ":id" in change else {})
        taking = asyncio.create_task(take())
        await somebody_waits(engine)
        await stranger.commit()
    assert await taking == [written[number] for number in found]


PARK = "UPDATE outbox SET failed_at = now(), failure_reason = 'x' WHERE id = :id"
OTHERWISE = "UPDATE outbox SET payload = 'x' WHERE id = :id"
WINDOW = 4711
"""An advisory lock: who takes rows waits for it behind the snapshot, and before the first row."""


@pytest.mark.parametrize("breadth", [1, SHARDS])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM outbox WHERE id = :id", [1, 2]),
        (PARK, [1, 2]),
        (OTHERWISE, [0, 1, 2]),
        # A person's statement alone does that to a ready row (docs/inside/decisions.md): it would have to be seen by
        # a look whose snapshot is older than it.
        (LATER, [1, 2]),
    ],
)
async def test_g4_what_a_stranger_commits_behind_the_snapshot_of_a_look(
    *, engine: AsyncEngine, outbox_table: Table, breadth: int, change: str, found: list[int]
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    statements = subject.store._statements
    wanted = statements._clauses["wanted"]
    slow = f"(SELECT wanted.*, pg_advisory_xact_lock_shared({WINDOW}) FROM {wanted} OFFSET 0) AS wanted"
    statements.take = statements._take(wanted=slow)
    written = await put(subject, *[draft(key="k")] * 3)
    where = await shards_of(subject, written[0])

    async def take() -> list[int]:
        async with subject.store.hand_over(where, limit=10, breadth=breadth) as hand_over:
            assert hand_over is not None
            return ids(hand_over.rows)

    async with engine.connect() as stranger:
        await stranger.execute(text("SELECT pg_advisory_lock(:window)"), {"window": WINDOW})
        await stranger.commit()
        taking = asyncio.create_task(take())
        await somebody_waits(engine)
        await stranger.execute(text(change), {"id": written[0]})
        await stranger.commit()
        assert not taking.done()
        await stranger.execute(text("SELECT pg_advisory_unlock(:window)"), {"window": WINDOW})
        await stranger.commit()
    assert await taking == [written[number] for number in found]


async def test_g4_a_second_stranger_is_waited_for_as_the_first(engine: AsyncEngine, outbox_table: Table) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    first, second, third, fourth = await put(subject, *[draft(key="k")] * 3, draft(key="k"))
    where = await shards_of(subject, first)

    async def take() -> list[int]:
        async with subject.store.hand_over(where, limit=10) as hand_over:
            assert hand_over is not None
            return ids(hand_over.rows)

    async with engine.connect() as one, engine.connect() as other:
        await one.execute(text("DELETE FROM outbox WHERE id = :id"), {"id": first})
        await other.execute(text(LATER), {"id": third})
        taking = asyncio.create_task(take())
        await somebody_waits(engine)
        await one.commit()
        await somebody_waits(engine)
        await other.commit()
    assert await taking == [second]
    assert fourth in await subject.rows()


async def test_g4_a_row_that_a_stranger_has_locked_does_not_hold_up_other_shards_for_long(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    [free, locked] = await put(subject, *(draft(key=key) for key in await keys_apart(subject, 2)))
    async with engine.connect() as stranger:
        await stranger.execute(text("SELECT FROM outbox WHERE id = :id FOR UPDATE"), {"id": locked})
        where = await shards_of(subject, free, locked)
        async with subject.store.hand_over(where, limit=10, breadth=SHARDS) as hand_over:
            assert hand_over is not None
            assert ids(hand_over.rows) == [free]
            assert list(hand_over.shards) == where[:1]
            assert hand_over.has_more, "better one at a time now"
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        await stranger.rollback()
    async with subject.store.hand_over(where, limit=10, breadth=SHARDS) as hand_over:
        assert hand_over is not None
        assert ids(hand_over.rows) == [locked]


@pytest.mark.parametrize("breadth", [1, SHARDS])
async def test_g1_rows_are_seen_as_the_taker_before_has_left_them(
    engine: AsyncEngine, outbox_table: Table, breadth: int
) -> None:
    """Lanes take in turns what one key has: none sees a row that was delivered already, or passes one."""
    subject = PostgresSubject(engine, outbox_table, None)
    written = await put(subject, *(draft(key="k") for _ in range(40)))
    taken: list[int] = []

    async def lane() -> None:
        while len(taken) < len(written):
            async with subject.store.hand_over(shards(), limit=2, breadth=breadth) as hand_over:
                if hand_over is not None:
                    taken.extend(ids(hand_over.rows))
                    await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])

    async with asyncio.timeout(30):
        await asyncio.gather(*(lane() for _ in range(4)))
    assert taken == written


async def test_g6_a_hand_over_of_which_nothing_is_heard_is_ended_by_the_server(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    """As when its machine lost its power: no connection is closed, and nobody says goodbye."""
    subject = PostgresSubject(engine, outbox_table, None)
    written = await put(subject, draft(key="k"), draft(key="k"))
    with pytest.raises(DBAPIError):  # noqa: PT012 - the hand-over itself ends with it
        async with subject.store.hand_over(shards(), limit=10, idle_seconds=0.3) as silent:
            assert silent is not None
            async with asyncio.timeout(10):
                while True:
                    async with subject.store.hand_over(shards(), limit=10) as other:
                        if other is not None:
                            assert ids(other.rows) == written
                            break
            await silent.settle([Settlement(row, Delivered()) for row in silent.rows])
    async with subject.store.hand_over(shards(), limit=10) as again:
        assert again is not None
        assert ids(again.rows) == written


async def test_what_was_set_for_a_hand_over_ends_with_it(database_url: str, outbox_table: Table) -> None:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    subject = PostgresSubject(engine, outbox_table, None)
    await put(subject, draft())
    async with subject.store.hand_over(shards(), limit=10, breadth=2) as hand_over:
        assert hand_over is not None
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "0"
        assert await connection.scalar(text("SHOW lock_timeout")) == "0"
    await engine.dispose()


async def test_many_calls_at_once_leave_connections_to_the_application(database_url: str, outbox_table: Table) -> None:
    engine = create_async_engine(database_url, pool_size=40)
    in_use: list[int] = []
    event.listen(engine.sync_engine, "checkout", lambda *_: in_use.append(engine.sync_engine.pool.checkedout()))
    store = PostgresSubject(engine, outbox_table, None).store
    claims = (store.claim(shards(), limit=1, lease_seconds=60, token="t") for _ in range(40))
    assert await asyncio.gather(*claims) == [([], False)] * 40
    assert max(in_use) == MOST_CALLS
    await engine.dispose()


async def test_g13_calls_that_meet_a_pooler_at_the_same_time_all_run_again(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    """What a pooler in transaction mode answers to a statement that was prepared elsewhere."""
    store = PostgresSubject(engine, outbox_table, None).store
    both = asyncio.Barrier(2)

    async def call() -> int:
        attempts = 0

        async def work(connection: AsyncConnection) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await both.wait()
                await connection.exec_driver_sql("EXECUTE prepared_elsewhere")
            return attempts

        return await store._runner.run(work)

    assert await asyncio.gather(call(), call()) == [2, 2]
