"""What a bridge would be that does not keep its promises: each of these is to be found out."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._store.postgres import statements
from faststream_outbox._store.postgres.handing_over import PostgresHandOver
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.outcome import Delivered, Settlement, Unsent

from .destination import Server
from .machine import ANOTHER

Mutate = Callable[[pytest.MonkeyPatch], None]


def a_row_leaves_the_table_before_it_is_sent(patch: pytest.MonkeyPatch) -> None:
    hand_over = PostgresStore.hand_over

    @asynccontextmanager
    async def too_early(self: PostgresStore, shards: Any, **limits: Any) -> AsyncIterator[PostgresHandOver | None]:
        async with hand_over(self, shards, **limits) as taken:
            if taken is not None:
                await taken.settle([Settlement(row, Delivered()) for row in taken.rows])
        if taken is not None:
            taken.write = _nothing
        yield taken

    patch.setattr(PostgresStore, "hand_over", too_early)


def outcomes_are_not_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PostgresHandOver, "settle", _nothing)


async def _nothing(*_: Any) -> list[Any]:
    """Nothing is written, and nothing refused."""
    return []


def publishing_commits(patch: pytest.MonkeyPatch) -> None:
    insert = PostgresWriter.insert

    async def committing(self: PostgresWriter, session: Any, draft: Any) -> int | None:
        row_id = await insert(self, session, draft)
        await session.commit()
        return row_id

    patch.setattr(PostgresWriter, "insert", committing)


def an_unanswered_row_counts_as_sent(patch: pytest.MonkeyPatch) -> None:
    outcome = Lane._outcome

    def trusting(self: Lane, row: Any, verdict: Any, elapsed: float) -> Any:
        return Delivered() if isinstance(verdict, Unsent) else outcome(self, row, verdict, elapsed)

    patch.setattr(Lane, "_outcome", trusting)


def dead_letters_do_not_hold_their_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FailurePolicy, "holding", lambda self, row, outcome: outcome)


def rows_pass_one_that_waits(patch: pytest.MonkeyPatch) -> None:
    _rewrite(patch, "take", ("key IS NULL OR NOT EXISTS", "true OR NOT EXISTS"))


def a_destination_lets_rows_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Server, "keeps_order", False)


def shards_are_not_locked(patch: pytest.MonkeyPatch) -> None:
    _rewrite(patch, "lock_shards", ("pg_try_advisory_xact_lock(", "0 <= abs("))
    _rewrite(patch, "take", ("FOR UPDATE{unless_locked}", "FOR UPDATE SKIP LOCKED"))


def an_outage_counts_as_an_attempt(patch: pytest.MonkeyPatch) -> None:
    outcome = Lane._outcome

    def counting(self: Lane, row: Any, verdict: Any, elapsed: float) -> Any:
        if isinstance(verdict, Unsent) and verdict.exception is not None:
            return self._failure.after_failure(row, verdict.exception, elapsed=elapsed)
        return outcome(self, row, verdict, elapsed)

    patch.setattr(Lane, "_outcome", counting)


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


class Mutant(NamedTuple):
    mutate: Mutate
    breaks: str
    """The promise by its number."""
    hold_key: bool = False
    """In which lives it shows."""
    story: Sequence[tuple[str, dict[str, Any]]] = ()
    """A life in which it shows, where the search takes long."""
    batch_size: int = 1
    """In that life."""

    def __str__(self) -> str:
        return self.mutate.__name__


_TWO_OF_A_KEY: dict[str, Any] = {"queue": "orders", "keys": ["a", "a"], "which": 0}
_ANOTHER_RELAY: tuple[str, dict[str, Any]] = ("hand_over", {"which": ANOTHER, "until": None, "script": []})

MUTANTS = [
    Mutant(publishing_commits, "G1"),
    Mutant(a_row_leaves_the_table_before_it_is_sent, "G2"),
    Mutant(outcomes_are_not_written, "G2"),
    Mutant(an_unanswered_row_counts_as_sent, "G2"),
    Mutant(a_replayed_row_gets_another_key, "G3"),
    Mutant(
        a_destination_lets_rows_pass,
        "G4",
        story=[("publish_and_hand_over", {**_TWO_OF_A_KEY, "until": None, "script": ["refuse"]})],
        batch_size=2,
    ),
    Mutant(
        shards_are_not_locked,
        "G4",
        story=[
            ("publish_and_hand_over", {**_TWO_OF_A_KEY, "until": "before sending", "script": []}),
            _ANOTHER_RELAY,
        ],
    ),
    Mutant(
        rows_pass_one_that_waits,
        "G4",
        story=[
            ("publish_and_hand_over", {**_TWO_OF_A_KEY, "until": None, "script": ["refuse"]}),
            _ANOTHER_RELAY,
        ],
    ),
    Mutant(dead_letters_do_not_hold_their_key, "G4|G2", hold_key=True),
    Mutant(an_outage_counts_as_an_attempt, "G5"),
]
