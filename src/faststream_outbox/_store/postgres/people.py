"""The statements with which people look, beside those of the loops."""

from sqlalchemy import Table

from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.figures import RowState

# Where rows of one state stand in which index, and which of them come first.
_IN_SHARD = "shard BETWEEN part.number - 1 AND part.number - 1"
_WAITING = f"{_IN_SHARD} AND acquired_token IS NULL AND failed_at IS NULL AND next_attempt_at"
_SEEN = {
    RowState.READY: (f"{_IN_SHARD} AND next_attempt_at IS NULL AND failed_at IS NULL", "shard, id", "row.id"),
    RowState.DUE: (f"{_WAITING} <= statement_timestamp()", "next_attempt_at", "row.next_attempt_at, row.id"),
    RowState.TIMER: (
        f"{_WAITING} > statement_timestamp() AND last_attempt_at IS NULL",
        "next_attempt_at",
        "row.next_attempt_at, row.id",
    ),
    RowState.RETRY: (
        f"{_WAITING} > statement_timestamp() AND last_attempt_at IS NOT NULL",
        "next_attempt_at",
        "row.next_attempt_at, row.id",
    ),
    RowState.LEASED: ("acquired_token IS NOT NULL", "acquired_token, next_attempt_at", "row.acquired_at, row.id"),
    RowState.PARKED: ("failed_at IS NOT NULL", "queue, failed_at", "row.failed_at, row.id"),
}


class PeopleStatements(Statements):
    """The statements for one outbox table, and those that only people run."""

    def __init__(self, outbox_table: Table, dlq_table: Table | None = None) -> None:
        super().__init__(outbox_table, dlq_table)
        self.dead_letters_groups = self._load("dead_letters_groups")
        self.now = self._load("now")
        self.queue_names = self._write("queue_names")
        self.queue_figures = self._write("queue_figures")
        self.seen = {
            state: self._write("seen", in_state=in_state, in_order=in_order, first=first)
            for state, (in_state, in_order, first) in _SEEN.items()
        }
        self.explained = {
            "lock_shards": self._explain("lock_shards"),
            "take": self._explain("take", unless_locked=" NOWAIT"),
            **{name: self._explain(name) for name in ("claim", "rescue", "settle_delivered", "outlook")},
        }
        self.facts_of_server = self._load("facts_of_server")
        self.facts_of_tables = self._load("facts_of_tables")
        self.facts_of_indexes = self._load("facts_of_indexes")
        self.facts_of_snapshots = self._load("facts_of_snapshots")
        self.facts_of_blockers = self._load("facts_of_blockers")
