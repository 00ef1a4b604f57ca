"""What a bridge would be that does not keep its promises: each of these is to be found out."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.lane import Lane
from faststream_outbox._store.postgres import statements
from faststream_outbox._store.postgres.store import PostgresHandOver, PostgresStore
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.outcome import Delivered, Settlement, Unsent

Mutate = Callable[[pytest.MonkeyPatch], None]


def a_row_leaves_the_table_before_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    hand_over = PostgresStore.hand_over

    @asynccontextmanager
    async def too_early(self: PostgresStore, places: Any, **limits: Any) -> AsyncIterator[PostgresHandOver | None]:
        async with hand_over(self, places, **limits) as taken:
            if taken is not None:
                await taken.settle([Settlement(row, Delivered()) for row in taken.rows])
        if taken is not None:
            taken._settle = _nothing
        yield taken

    patch.setattr(PostgresStore, "hand_over", too_early)


def outcomes_are_not_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PostgresHandOver, "settle", _nothing)


async def _nothing(*_: Any) -> None:
    """Not even this."""


def publishing_commits(patch: pytest.MonkeyPatch) -> None:
    insert = PostgresWriter.insert

    async def committing(self: PostgresWriter, session: Any, draft: Any) -> int | None:
        row_id = await insert(self, session, draft)
        await session.commit()
        return row_id

    patch.setattr(PostgresWriter, "insert", committing)


def an_unanswered_row_counts_as_sent(patch: pytest.MonkeyPatch) -> None:
    outcome = Lane._outcome

    def trusting(self: Lane, row: Any, fate: Any, elapsed: float) -> Any:
        return Delivered() if isinstance(fate, Unsent) else outcome(self, row, fate, elapsed)

    patch.setattr(Lane, "_outcome", trusting)


def dead_letters_do_not_hold_their_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FailurePolicy, "holding", lambda self, row, outcome: outcome)


def rows_pass_one_that_waits(patch: pytest.MonkeyPatch) -> None:
    _rewrite(patch, "take", ("key IS NULL OR NOT EXISTS", "true OR NOT EXISTS"))


def a_replayed_row_gets_another_key(patch: pytest.MonkeyPatch) -> None:
    old = "SELECT queue, key, idempotency_key, deduplicate, payload"
    _rewrite(patch, "dead_letters_replay", (old, old.replace("idempotency_key", "CAST(gen_random_uuid() AS text)")))


def _rewrite(patch: pytest.MonkeyPatch, name: str, *changes: Sequence[str]) -> None:
    read = statements._read
    changed = read(name)
    for old, new in changes:
        assert old in changed
        changed = changed.replace(old, new)
    patch.setattr(statements, "_read", lambda each: changed if each == name else read(each))


MUTANTS: dict[Mutate, str] = {
    publishing_commits: "G1",
    a_row_leaves_the_table_before_it_is_sent: "G2",
    outcomes_are_not_written: "G2",
    an_unanswered_row_counts_as_sent: "G2",
    a_replayed_row_gets_another_key: "G3",
    rows_pass_one_that_waits: "G4",
    dead_letters_do_not_hold_their_key: "G4|G2",
}
"""And the promise that it breaks."""
