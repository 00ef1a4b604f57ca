"""What the loops need of a store. PostgreSQL and memory implement it and pass one shared suite."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from faststream_outbox._store.controls import ControlStore
from faststream_outbox._store.positions import NO_MOVES, PositionStore
from faststream_outbox._values.control import Note, PausedKey
from faststream_outbox._values.dead_letter import DeadLetter, Selection
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.explanation import Explanation
from faststream_outbox._values.facts import (
    BlockerFacts,
    IndexFacts,
    PlanFacts,
    ServerFacts,
    SnapshotFacts,
    TableFacts,
)
from faststream_outbox._values.figures import DeadLetterGroups, QueueFigures, RowState, SeenRow
from faststream_outbox._values.outcome import Settlement, Unwritten
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import Run
from faststream_outbox._values.shard import Shard
from faststream_outbox._values.staged import Noted, StagedMessage
from faststream_outbox.checks import MAX_COUNT

RESCUED_AT_ONCE = 3
"""A row whose holder is gone is due at once, up to so many deliveries. After more it may be the row that ends its
holders, one after the other: it waits, twice as long each time, and lets others go first."""

LONGEST_REST_SECONDS = 60.0
"""How long it waits at most."""

PRESENCE_PREFIX = "presence:"
"""A holder's token begins with it when an advisory lock proves that the holder lives; its loss frees the leases."""

DEFAULT_BATCH_BYTES = 8 * 1024 * 1024
"""Payloads and headers of one hand-over or claim, in bytes. A lane holds about twice as much: the rows, and what it
sends; a consumer too, with what is claimed ahead."""

DEFAULT_IDLE_SECONDS = 60.0
"""How long a hand-over may be without a sign of life."""


class LeftOut(NamedTuple):
    """A row that a hand-over is not to take."""

    shard: Shard
    id: int
    held_key: str | None = None
    """Its key, if no row of that key may be taken either."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """What one pass over the leases found."""

    freed_queues: frozenset[str]
    """Queues of the rows that were given back."""
    absent: frozenset[str]
    """Tokens of leases whose holder's presence is gone."""


class Lag(NamedTuple):
    """How far consumers are behind."""

    rows: int
    """Those that could be taken now."""
    seconds: float
    """For how long the one that waits longest could have been; 0.0 where there is none."""


class Outlook(NamedTuple):
    """What there is to do in a queue, as far as one statement shows for many queues at once."""

    is_ready: bool = False
    """Whether it has a ready row. Others may have that in hand just now, or it stands behind a waiting one."""
    seconds: float | None = None
    """Until its first waiting row is due; below zero where that is over, None where none waits."""


class Announcement(NamedTuple):
    """What a process says of itself to all that listen."""

    queues: frozenset[str]
    """Queues that it consumes; perhaps not all of them."""


class PausesChanged:
    """Somebody has paused or resumed something for all processes."""


class Holder(NamedTuple):
    """A session that holds the lock of a shard."""

    shard: Shard
    who: str
    """In words: its process, its user, and since when, where that is known."""
    hold: str
    """Changes when the session begins another transaction."""


class Claim(NamedTuple):
    """Rows that were leased."""

    rows: list[OutboxRow]
    """In the order of their ids."""
    has_more: bool
    """Whether there may be more that could be claimed now: the limits have left them out."""


class HandOver(Protocol):
    """Rows of some shards, locked until the context that gave them ends."""

    shards: Sequence[Shard]
    vacant: Sequence[Shard]
    """The shards whose rows are all known to wait for another row."""
    has_more: bool
    """Whether a shard may have more rows than it gave, or could not be taken together with others."""
    is_whole: bool
    """Whether all shards were looked at: those that were not taken had no work, or another taker."""
    rows: Sequence[OutboxRow]
    """In the order of their ids."""

    run: Run
    """Of the server that has given them."""
    tokens: Mapping[Shard, int]
    """Who has written the positions of these shards last, where that is kept and known."""

    def row_shards(self) -> Sequence[Shard]:
        """Return where each of the rows stands, in their order."""

    async def settle(
        self, settlements: Sequence[Settlement], moves: Mapping[Shard, Move] = NO_MOVES
    ) -> Sequence[Unwritten]:
        """Write the outcomes; they become final when the context ends without an error.

        The positions move with the rows that are delivered: both, or neither. Where no row is, they move alone.

        Returns:
            Outcomes that the database refuses. Their rows stay as they are; all other outcomes are written.

        Raises:
            Exception: Nothing is written. That is so too where the database refuses an outcome unexpectedly: the next
                hand-overs then set such an outcome apart, which costs them round trips that others do without.
        """


class Listener(Protocol):
    """An open line on which the store names queues with new rows, and processes and people say what they do."""

    def __aiter__(self) -> AsyncIterator[str | Announcement | PausesChanged]:
        """Yield a queue's name for each wake-up, and what processes and people say; raise when the line breaks."""


class Writer(Protocol):
    """What publishers do with rows. ``session`` is the caller's: what is written in it, the caller commits."""

    async def insert(self, session: Any, draft: Draft) -> int | None:
        """Write one message and its copies, and return its id; None where it is a live duplicate."""

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        """Write one message as ``insert`` does, for callers that cannot await."""

    async def insert_alone(self, draft: Draft) -> int | None:
        """Write one message as ``insert`` does, in a transaction of its own."""

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        """Write messages of one queue and their copies, in order; live duplicates are left out.

        All have the same ``copies``. A live duplicate gets no copies; a copy that is one is left out alone.
        """

    def stage(self, session: Any, draft: Draft, message: StagedMessage, noted: Noted) -> None:
        """Have one message and its copies written with the session's next flush, or before its commit.

        Args:
            session: The caller's.
            draft: The message.
            message: Is told when it is written.
            noted: Is told what one statement has written to each queue.
        """

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str, copies: Sequence[str] = ()) -> bool:
        """Delete a timer that no consumer has taken; tell whether there was one. Its copies go likewise."""

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        """Read rows that no consumer has finished, in the order of their ids."""


class DeadLetterStore(Protocol):
    """What people do with rows that failed for good. ``session`` is the caller's, or None: a transaction of its own."""

    async def list(
        self, session: Any, selection: Selection, *, limit: int, max_bytes: int = MAX_COUNT
    ) -> Sequence[DeadLetter]:
        """Look at dead letters, the oldest first, with up to ``max_bytes`` of each payload."""

    async def count(self, session: Any, selection: Selection) -> int:
        """Count dead letters."""

    async def groups(self, session: Any, selection: Selection, *, limit: int, at_most: int) -> DeadLetterGroups:
        """Group up to ``at_most`` dead letters, and return the ``limit`` largest groups."""

    async def replay(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        """Turn dead letters into ordinary rows again; return how many.

        The note is written into the audit log in the same transaction, where there is a log and anything has changed.

        One that held its key keeps its id and comes first of its key; others stand behind what already waits.
        """

    async def discard(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        """Delete dead letters for good; tell how many. The note is written as for ``replay``."""

    async def now(self) -> datetime:
        """Return the time by the clock that the times of dead letters are from."""


class Onlooker(Protocol):
    """What people look at. No look takes a lock or a lease, and all are bounded."""

    async def queues(self, *, limit: int, at_most: int, behind: str = "") -> Sequence[QueueFigures]:
        """Count the rows of up to ``limit`` queues, in the order of their names, beginning behind a name.

        Of ready, due and waiting rows, up to ``at_most`` in each shard are counted; of leased ones as many in all
        queues together; of dead letters as many of each queue in each table.
        """

    async def seen(self, queue: str, state: RowState, *, limit: int, max_bytes: int) -> Sequence[SeenRow]:
        """Return rows of a queue that are in a state, the first first, with up to ``max_bytes`` of each payload."""


class Examiner(Protocol):
    """What the database says of itself, for people who look for what is wrong. No look takes a lock."""

    async def server(self) -> ServerFacts:
        """Return what is known of the server, the database and the role that asks."""

    async def tables(self) -> Sequence[TableFacts]:
        """Return what the statistics say of the outbox table, and of the dead-letter table where there is one."""

    async def has_table(self, table: Any) -> bool:
        """Return whether the database has a table of this name."""

    def declared_indexes(self) -> Sequence[IndexFacts]:
        """Return the indexes that the tables are declared with."""

    async def indexes(self) -> Sequence[IndexFacts]:
        """Return the indexes that the tables have in the database."""

    async def snapshots(self, *, seconds: float) -> Sequence[SnapshotFacts]:
        """Return what has kept deleted rows from being cleaned up for longer than that."""

    async def blockers(self) -> Sequence[BlockerFacts]:
        """Return the sessions for which others wait that work on the tables."""

    async def plans(self, queue: str) -> Sequence[PlanFacts]:
        """Return how the statements of consumers would be run for a queue."""

    async def holders(self, queue: str) -> Sequence[str]:
        """Return in words the sessions that hold shards of a queue which have rows to be taken."""

    async def consumed(self, *, seconds: float) -> frozenset[str] | None:
        """Listen for so long, and return the queues that processes have announced; None where nothing is heard.

        With 0 seconds, only whether anything is heard is found out.
        """

    async def differences(self) -> Mapping[str, Sequence[str]]:
        """Return, for each table that is not as it was declared, in what it differs."""


class Store(Protocol):
    """Rows and leases. Every method is one short transaction of its own."""

    @property
    def positions(self) -> PositionStore | None:
        """Where positions are kept; None where there is no table for them."""

    @property
    def controls(self) -> ControlStore | None:
        """Where pauses are kept; None where there is no table for them."""

    @property
    def most_connections(self) -> int | None:
        """How many connections handlers, claims and hand-overs have together; None: no limit."""

    async def claim(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        lease_seconds: float,
        token: str,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        paused: Sequence[PausedKey] = (),
    ) -> Claim:
        """Lease up to ``limit`` rows to ``token``, shard by shard; none of them has a key that is paused.

        Half of them are rows whose time has come, half are ready ones; what one half does not use the other gets.
        Payloads and headers have up to ``max_bytes`` together; a single row may have more.
        """

    async def settle(self, settlements: Sequence[Settlement], *, token: str) -> Sequence[Unwritten]:
        """Write outcomes of leased rows. A row that this token and delivery no longer hold is left alone.

        Returns:
            Outcomes that the database refuses. Their rows stay leased; all other outcomes are written.
        """

    async def unsettled(self, rows: Sequence[OutboxRow]) -> set[int]:
        """Return the ids of the rows that are as they were: neither settled nor deleted since."""

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        """Prolong leases; return the ids of those that still were held."""

    async def give_back(self, queues: Sequence[str], *, known: Sequence[int], token: str) -> None:
        """Release all rows of these queues that are leased to ``token``, except those that the holder knows."""

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        """Release rows whose lease ran out, and those of ``suspects`` whose presence is gone."""

    def reserve(self) -> None:
        """Have a connection of its own for ``settle``, ``renew`` and ``rescue`` from the next of them on.

        Handlers may hold all those that the application has, for longer than their leases last.
        """

    async def let_go(self) -> None:
        """Close that connection: nothing is leased."""

    async def outlook(self, shards: Sequence[Shard]) -> Mapping[str, Outlook]:
        """Return what there is to do in the queues of these shards, without those in which nothing is or waits."""

    async def make_due(self, shards: Sequence[Shard], *, slot: int, limit: int) -> int:
        """End the waiting of up to ``limit`` rows of these shards that were deferred to a slot; return how many."""

    async def retry_now(self, queue: str | None) -> Mapping[str, int]:
        """End the waiting of rows of a queue and its copies that were tried before; return how many of each queue.

        None is every queue. Timers, and rows that a consumer has, are left alone.
        """

    async def lag(self, shards: Sequence[Shard], *, at_most: int | None = None) -> Lag:
        """Count the rows of these shards that are ready or due, and tell how old the oldest is.

        With ``at_most``, no more ready and no more due ones of each shard are counted: that many are enough to know.
        """

    async def holders(self, shards: Sequence[Shard]) -> list[Holder]:
        """Name the sessions that hold those of these shards which have rows to be taken."""

    async def survey(self, shards: Sequence[Shard]) -> None:
        """Learn where the rows of these shards begin that can be taken; claims and hand-overs look from there on.

        Without it they find the same rows, and may take longer. One at a time; nothing else waits for it.
        """

    async def unconsumed(self, consumed: Sequence[str], *, limit: int) -> list[str]:
        """Name up to ``limit`` queues beside those given that have a row which is ready or due."""

    async def announce(self, queues: Sequence[str]) -> None:
        """Announce to all processes that listen, this one too, that this process consumes these queues."""

    def hand_over(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        breadth: int = 1,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        idle_seconds: float = DEFAULT_IDLE_SECONDS,
        left_out: Sequence[LeftOut] = (),
        paused: Sequence[PausedKey] = (),
        forwarder: str | None = None,
        only: Sequence[int] | None = None,
    ) -> AbstractAsyncContextManager[HandOver | None]:
        """Take the first of ``shards`` that have work and no other taker, and lock some of their rows.

        Up to ``breadth`` shards are taken, and up to ``limit`` rows, of which each shard gives its share at most, in
        halves as for a claim: the first rows whose time has come, and the first ready ones. Payloads and headers have
        up to ``max_bytes`` together; a single row may have more. Rows behind a waiting row of their key are not among
        them, nor are those in ``left_out`` or of paused keys, so the rows may be none. The context yields None where
        no shard can be taken. Leaving it normally commits; leaving it with an error gives all rows back unchanged.

        With a forwarder's name, its positions are read and written too.

        With ``only``, rows of one shard are taken by their ids, wherever they stand in it: also behind a waiting row of
        their key. That is for outcomes that are known; rows to be sent are taken without it.

        The store gives them back by itself when it hears nothing for ``idle_seconds``: a machine that lost its power,
        or whose process is stopped, does not say goodbye.
        """

    def listen(self, token: str) -> AbstractAsyncContextManager[Listener | None]:
        """Open the line for wake-ups and hold the presence of ``token`` while it is open.

        Yields None where the server accepts the line but never speaks on it, as behind a pooler in transaction mode.
        """

    async def ping(self) -> bool:
        """Return whether rows can be written; raise what the database raises when it cannot be reached."""

    def explain(self, error: BaseException) -> Explanation:
        """Return in words what an error of the store means, and what to do about it where that is known."""

    async def differences(self) -> dict[str, list[str]]:
        """Return, for each table that is not as it was declared, its differences."""
