"""Loads the statements in ``queries`` for one pair of tables."""

import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from importlib.resources import files
from itertools import dropwhile
from typing import NamedTuple

from sqlalchemy import Table, TextClause, text
from sqlalchemy.dialects.postgresql.base import PGDialect

from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox.schema import CHECKS, MAX_STORED_HEADERS_BYTES

# A driver's own style may want percent signs doubled; SQLAlchemy does that when it compiles a statement for the driver.
_IDENTIFIERS = PGDialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]

_WAKE = ", pg_notify(CAST(:channel AS text), CAST(:queue AS text))"
_WAKE_EACH = ", pg_notify(CAST(:channel AS text), woken.queue)"
_WAKE_ALL = ", (SELECT count(pg_notify(CAST(:channel AS text), woken.queue)) FROM woken)"
_SKIP_DUPLICATES = "ON CONFLICT DO NOTHING"

# PostgreSQL keeps one plan for a prepared statement when it seems no dearer than plans made for the values at hand. A
# plan kept from a time when the table was empty would read all of the table when that is full. With this condition the
# kept plan always seems dearer: its subquery looks endless, while with the value at hand there is none. See
# docs/inside/plans.md.
_PLANNED_ANEW = "(CAST(:planned_anew AS boolean) OR (SELECT count(*) FROM generate_series(1, 1000000000000000)) = 0)"

# Where a look at a shard begins. What was learned from another server (a promoted standby may give ids once more) or
# before a restart does not count. Nor does what was learned before a crash of one of the server's processes: all others
# are ended then and transactions that asynchronous commit has not written yet are lost, ids and all, while the server
# goes on, and behind a pooler the client's connection too. The server begins its statistics anew when it recovers.
_FLOOR = """CASE
                WHEN pg_postmaster_start_time() = CAST(:started AS timestamptz)
                  AND pg_stat_get_bgwriter_stat_reset_time() IS NOT DISTINCT FROM CAST(:recovered AS timestamptz)
                THEN wanted.floor
                ELSE 0
            END"""

# Whether a shard has a ready row or a due one. The looks are scalar subqueries with an order, for reasons told in
# docs/inside/plans.md.
_HAS_WORK = """COALESCE(
        (
            SELECT true
            FROM {table}
            WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, {floor}) AND shard <= wanted.shard
              AND next_attempt_at IS NULL AND failed_at IS NULL
            ORDER BY shard, id
            LIMIT 1
        ),
        (
            SELECT true
            FROM {table}
            WHERE queue = wanted.queue AND shard = wanted.shard
              AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
            ORDER BY next_attempt_at
            LIMIT 1
        )
    )""".replace("{floor}", _FLOOR)

_FLOORS = """unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[]))
        AS wanted(queue, shard, floor)"""

# Where a look begins that leaps: at the edge, but not behind the first row whose barrier is gone.
_LEAP = """CASE
                WHEN pg_postmaster_start_time() = CAST(:started AS timestamptz)
                  AND pg_stat_get_bgwriter_stat_reset_time() IS NOT DISTINCT FROM CAST(:recovered AS timestamptz)
                THEN GREATEST(wanted.floor, LEAST(wanted.edge, (
                    SELECT min(barred.first)
                    FROM unnest(
                        CAST(:barred_at AS integer[]), CAST(:barriers AS bigint[]), CAST(:barred_from AS bigint[])
                    ) AS barred(number, barrier, first)
                    WHERE barred.number = wanted.number AND (
                        SELECT true
                        FROM {table} AS barrier
                        WHERE barrier.id = barred.barrier
                          AND barrier.last_attempt_at IS NOT NULL AND barrier.next_attempt_at IS NOT NULL
                    ) IS NULL
                )))
                ELSE 0
            END"""

_EDGES = """unnest(
        CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[]), CAST(:edges AS bigint[])
    ) WITH ORDINALITY AS wanted(queue, shard, floor, edge, number)"""

# What a table is, whatever it is called.
_OID = "CAST(CAST(CAST(:table AS regclass) AS oid) AS text)"

# SQL can write times that Python cannot express, and headers whose text is too large to be written out. Either, in one
# row of an answer, would make the whole answer unreadable.
_READABLE = {
    "headers": f"CASE WHEN pg_column_size(headers) <= {MAX_STORED_HEADERS_BYTES} "
    "THEN CAST(headers AS text) END AS headers",
    **{
        column: f"CASE WHEN {column} IS NOT NULL THEN LEAST(GREATEST({column}, TIMESTAMPTZ '0001-01-02 UTC'), "
        f"TIMESTAMPTZ '9999-12-30 UTC') END AS {column}"
        for column in (
            *("created_at", "first_attempt_at", "last_attempt_at", "next_attempt_at", "acquired_at", "failed_at"),
            *("at", "until", "ended_at"),
        )
    },
}

# Rows that a hand-over is not to take, and keys of which it is to take none.
# Due rows that a handler had and did not settle: they stand in the order of their key, as ready rows do.
_GIVEN_BACK = "last_attempt_at IS NULL AND (deliveries_count > 0 OR next_attempt_at = created_at)"

# Keys whose rows nobody is to take for now. Few rows have one of them, and of these alone it is asked in which queue.
_NOT_PAUSED = """(
              key IS NULL OR key <> ALL (CAST(:paused_keys AS text[])) OR NOT EXISTS (
                  SELECT
                  FROM unnest(CAST(:paused_queues AS text[]), CAST(:paused_keys AS text[])) AS paused(in_queue, name)
                  WHERE paused.name = key AND COALESCE(paused.in_queue = queue, true)
              )
          )"""

_NOT_LEFT_OUT = "id <> ALL (CAST(:left_out AS bigint[])) AND (key IS NULL OR key <> ALL (CAST(:held_keys AS text[])))"

_PAUSED = {"not_left_out": f"{_NOT_LEFT_OUT}\n              AND {_NOT_PAUSED}"}

# Which dead letters are meant; what is not given is NULL.
_SELECTED = """d.failed_at IS NOT NULL
      AND (CAST(:queue AS text) IS NULL OR d.queue = CAST(:queue AS text))
      AND (CAST(:key AS text) IS NULL OR d.key = CAST(:key AS text))
      AND (CAST(:reason AS text) IS NULL OR d.failure_reason = CAST(:reason AS text))
      AND (CAST(:failed_after AS timestamptz) IS NULL OR d.failed_at >= CAST(:failed_after AS timestamptz))
      AND (CAST(:failed_before AS timestamptz) IS NULL OR d.failed_at < CAST(:failed_before AS timestamptz))
      AND (CAST(:older_than AS interval) IS NULL OR d.failed_at < statement_timestamp() - CAST(:older_than AS interval))
      AND (CAST(:exception AS text) IS NULL OR strpos(d.last_exception, CAST(:exception AS text)) > 0)
      AND (CAST(:kind AS text) IS NULL
          OR COALESCE(split_part(split_part(d.last_exception, chr(10), 1), ':', 1), '') = CAST(:kind AS text))
      AND (CAST(:ids AS bigint[]) IS NULL OR d.id = ANY (CAST(:ids AS bigint[])))"""

_NO_LETTERS = "(SELECT CAST(NULL AS text) AS queue WHERE false)"
"""Where there is no dead-letter table."""


# Where a dead letter comes from: the name of what its outbox table is, whichever way this process calls it.
_ORIGIN = """(
    SELECT quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = CAST(CAST(:outbox AS text) AS regclass)
)"""

# What a hand-over that keeps positions sees of its shards: who has written them last.
_OF_POSITION = """
        LEFT JOIN {position_table} AS held ON held.outbox = {origin} AND held.forwarder = CAST(:forwarder AS text)
            AND held.queue = wanted.queue AND held.shard = wanted.shard AND held.topic = '' AND held.partition = -1"""

# What a hand-over writes of its shards: a token for each, and how far they have come. A shard
# that has another token than the expected one is left out, and the count says so.
_MOVES = """held AS (
    UPDATE {position_table} AS p
    SET token = u.new_token, written_at = statement_timestamp()
    FROM unnest(
        CAST(:moved_queues AS text[]), CAST(:moved_shards AS smallint[]),
        CAST(:tokens AS bigint[]), CAST(:new_tokens AS bigint[])
    ) AS u(queue, shard, token, new_token)
    WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.queue = u.queue AND p.shard = u.shard AND p.topic = '' AND p.partition = -1
      AND p.token = u.token
    RETURNING p.shard
),
moved AS (
    UPDATE {position_table} AS p
    SET next_sequence = u.next_sequence, last_offset = u.last_offset, written_at = statement_timestamp()
    FROM unnest(
        CAST(:part_queues AS text[]), CAST(:part_shards AS smallint[]), CAST(:topics AS text[]),
        CAST(:partitions AS integer[]), CAST(:next_sequences AS integer[]), CAST(:last_offsets AS bigint[])
    ) AS u(queue, shard, topic, partition, next_sequence, last_offset)
    WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.queue = u.queue AND p.shard = u.shard AND p.topic = u.topic AND p.partition = u.partition
    RETURNING p.shard
)"""

_WITHOUT_POSITION = {"position_token": "", "shard_token": "", "of_position": ""}

_DEAD_LETTER = """id, queue, key, idempotency_key, payload, headers, attempts_count, deliveries_count, created_at,
    first_attempt_at, last_attempt_at, timer_id, failed_at, failure_reason, last_exception"""


class Take(NamedTuple):
    """The statement that takes rows."""

    at_once: DriverStatement
    """Fails where a row is locked."""
    waiting: DriverStatement
    """Waits for it."""


class InsertStaged(NamedTuple):
    """The statements that write messages of several queues."""

    plain: DriverStatement
    deduplicated: DriverStatement
    with_copies: DriverStatement
    with_copies_deduplicated: DriverStatement


class PauseStatements(NamedTuple):
    """The statements that pass by the rows of paused keys."""

    claim: DriverStatement
    take: Take
    take_leaping: Take


class Statements:
    """The statements for one outbox table. Only names of tables and fixed clauses are filled in; values are bound.

    Args:
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None.
        position_table: Made by ``make_position_table``, or None.
        notify: Whether publishing wakes consumers with NOTIFY.
    """

    def __init__(
        self,
        outbox_table: Table,
        dlq_table: Table | None = None,
        position_table: Table | None = None,
        *,
        notify: bool = False,
    ) -> None:
        self._clauses = {
            "table": _escaped(outbox_table),
            "dlq_table": "" if dlq_table is None else _escaped(dlq_table),
            "position_table": "" if position_table is None else _escaped(position_table),
            "dead_letters": _both(outbox_table, dlq_table),
            "moved_letters": _NO_LETTERS if dlq_table is None else _moved(dlq_table),
            "origin": _ORIGIN,
            "selected": _SELECTED,
            "planned_anew": _PLANNED_ANEW,
            "floor": _FLOOR,
            "wanted": _FLOORS,
            "start": _FLOOR,
            "edges": _EDGES,
            "leap": _LEAP.replace("{table}", _escaped(outbox_table)),
            "has_work": _HAS_WORK.replace("{table}", _escaped(outbox_table)),
            "oid": _OID,
            **_READABLE,
            "not_left_out": _NOT_LEFT_OUT,
            "not_paused": "",
            "given_back": _GIVEN_BACK,
            **_WITHOUT_POSITION,
            "checks": " AND ".join(CHECKS.values()),
        }
        # Parameters that clauses bring along.
        self._constants = {_PLANNED_ANEW: ("planned_anew", True), _ORIGIN: ("outbox", quote_table(outbox_table))}
        self._notify, wake = notify, _WAKE if notify else ""
        self.insert_ready = self._write("insert_ready", notify=wake)
        self.insert = self._write("insert", notify=wake, on_conflict="")
        self.insert_deduplicated = self._write("insert", notify=wake, on_conflict=_SKIP_DUPLICATES)
        self.insert_many = self._write("insert_many", notify=wake, on_conflict="")
        self.insert_many_deduplicated = self._write("insert_many", notify=wake, on_conflict=_SKIP_DUPLICATES)
        wake_each = _WAKE_EACH if notify else ""
        self.insert_with_copies = self._write("insert_with_copies", notify=wake_each, on_conflict="")
        self.insert_with_copies_deduplicated = self._write(
            "insert_with_copies", notify=wake_each, on_conflict=_SKIP_DUPLICATES
        )
        self.left_out = self._write("left_out")
        self.take_back = self._write("take_back")
        self.insert_timer, self.cancel_timer = self._write("insert_timer", notify=wake), self._load("cancel_timer")
        self.fetch_unprocessed = self._load("fetch_unprocessed")
        self.claim = self._write("claim")
        self.lock_shards = self._write("lock_shards")
        self.take = self._take()
        self.take_leaping = self._take(wanted=_EDGES, start=self._clauses["leap"])
        self.take_known = self._write("take_known")
        self.survey, self.leap = self._write("survey"), self._write("leap")
        self.writers = self._write("writers")
        self.settle_delivered = self._write("settle_delivered")
        self.settle_retry = self._write("settle_retry")
        self.settle_dead_parked = self._write("settle_dead_parked")
        self.settle_dead_moved = self.settle_dead_moved_before = None
        if dlq_table is not None:
            self.settle_dead_moved = self._write("settle_dead_moved", column="outbox, ", value=f"{_ORIGIN}, ")
            self.settle_dead_moved_before = self._write("settle_dead_moved", column="", value="")
        self.settle_released, self.settle_deferred = self._write("settle_released"), self._write("settle_deferred")
        self.unsettled = self._write("unsettled")
        self.renew, self.retry_now = self._write("renew"), self._write("retry_now")
        self.make_due, self.give_back = self._write("make_due"), self._write("give_back")
        self.rescue = self._write("rescue")
        self.outlook = self._write("outlook")
        self.lag = self._write("lag")
        self.holders = self._write("holders")
        self.unconsumed = self._write("unconsumed")
        self.announce = self._write("announce")
        self.dead_letters_list = self._load("dead_letters_list")
        self.dead_letters_count = self._load("dead_letters_count")
        self.dead_letters_free = self._load("dead_letters_free")
        # Parked ones first: most of them are from before there was a table to move them to.
        tables = [_as_dead(outbox_table, _escaped(outbox_table), meant="d.next_attempt_at IS NULL")]
        if dlq_table is not None:
            tables.append(_as_dead(dlq_table, _moved(dlq_table), meant="true"))
        self.dead_letters_replay = [self._load("dead_letters_replay", **table) for table in tables]
        self.dead_letters_discard = [self._load("dead_letters_discard", **table) for table in tables]
        self.listen_presence = self._load("listen_presence")
        self.listen_forever = self._load("listen_forever")
        self.ping = self._write("ping")

    @cached_property
    def beside_pauses(self) -> "PauseStatements":
        """Those that take rows while keys are paused; without pauses nothing is asked about keys."""
        return PauseStatements(
            claim=self._write("claim", not_paused=f"\n          AND {_NOT_PAUSED}"),
            take=self._take(**_PAUSED),
            take_leaping=self._take(wanted=_EDGES, start=self._clauses["leap"], **_PAUSED),
        )

    @cached_property
    def insert_staged(self) -> InsertStaged:
        """Those that write messages of several queues."""
        wake_all = _WAKE_ALL if self._notify else ""
        names = ("insert_staged", "insert_staged_with_copies")
        clauses = ("", _SKIP_DUPLICATES)
        return InsertStaged(
            *(self._write(name, notify=wake_all, on_conflict=clause) for name in names for clause in clauses)
        )

    @cached_property
    def positions(self) -> "PositionStatements | None":
        """Those for the position table; None where there is none."""
        if not self._clauses["position_table"]:
            return None
        return PositionStatements(self._write, self._take, self._clauses)

    def _take(self, **clauses: str) -> Take:
        return Take(*(self._write("take", unless_locked=word, **clauses) for word in (" NOWAIT", "")))

    def _write(self, name: str, **clauses: str) -> DriverStatement:
        return DriverStatement(self._load(name, **clauses))

    def _explain(self, name: str, **clauses: str) -> TextClause:
        return self._load(name, "EXPLAIN (FORMAT JSON) ", **clauses)

    def _load(self, name: str, before: str = "", **clauses: str) -> TextClause:
        statement = _named(name, fill(name, **(self._clauses | clauses)))
        return text(before + statement).bindparams(
            **dict(c for clause, c in self._constants.items() if clause in statement)
        )


def load_for(table: Table, name: str) -> TextClause:
    """Return a statement that is about one table alone."""
    statement = text(_named(name, fill(name, table=_escaped(table), planned_anew=_PLANNED_ANEW)))
    return statement.bindparams(planned_anew=True) if "planned_anew" in statement.text else statement


def load_control(outbox_table: Table, control_table: Table, name: str) -> TextClause:
    """Return a statement that is about the control table of an outbox."""
    clauses = {"control_table": _escaped(control_table), "origin": _ORIGIN, "oid": _OID, **_READABLE}
    statement = text(_named(name, fill(name, planned_anew=_PLANNED_ANEW, **clauses)))
    known = {"planned_anew": True, "outbox": quote_table(outbox_table)}
    return statement.bindparams(**{key: value for key, value in known.items() if f":{key}" in statement.text})


def _named(name: str, statement: str) -> str:
    """Return a statement as the server is given it: its name in place of the remarks before it.

    In ``pg_stat_activity`` the name is seen first. OpenTelemetry's instrumentations of SQLAlchemy and asyncpg call a
    span by the first word behind such a comment. They would call it ``--`` after remarks.
    """
    lines = statement.splitlines(keepends=True)
    return f"/* outbox {name} */ " + "".join(dropwhile(lambda line: line.startswith("--"), lines))


def fill(name: str, **clauses: str) -> str:
    """Return the statement of a file with clauses in the place of their names."""
    return _filled(_read(name), clauses)


class PositionStatements:
    """The statements for a position table.

    Args:
        write: Loads one.
        take: Loads those that take rows.
        clauses: What they have in common.
    """

    def __init__(
        self, write: Callable[..., DriverStatement], take: Callable[..., Take], clauses: Mapping[str, str]
    ) -> None:
        tokens = {
            "position_token": ", position_token",
            "shard_token": ", held.token AS position_token",
            "of_position": _filled(_OF_POSITION, clauses),
        }
        self.take = take(**tokens)
        self.take_leaping = take(wanted=_EDGES, start=clauses["leap"], **tokens)
        self.take_beside_pauses = take(**tokens, **_PAUSED)
        self.take_leaping_beside_pauses = take(wanted=_EDGES, start=clauses["leap"], **tokens, **_PAUSED)
        moves = _filled(_MOVES, clauses)
        self.settle_delivered_moved = write("settle_delivered_moved", moves=moves)
        self.move = write("position_move", moves=moves)
        self.held = write("position_held")
        self.take_over = write("position_take_over")
        self.begin = write("position_begin")
        self.list = write("position_list")
        self.open = write("position_open")
        self.alive = write("position_alive")


def _filled(statement: str, clauses: Mapping[str, str]) -> str:
    # In one pass, since a table's name may look like a placeholder.
    return re.sub(r"\{(\w+)\}", lambda placeholder: clauses[placeholder[1]], statement)


def quote_name(name: str) -> str:
    """Quote an identifier where SQL needs that."""
    return _IDENTIFIERS.quote(name)


def quote_table(table: Table) -> str:
    """Quote a table's name and schema for use in SQL."""
    return _IDENTIFIERS.format_table(table)


def _escaped(table: Table) -> str:
    # A colon in a quoted name would be taken for a bound parameter.
    return quote_table(table).replace(":", "\\:")


def _both(outbox_table: Table, dlq_table: Table | None) -> str:
    """Return all dead letters as one table: parked ones and moved ones."""
    if dlq_table is None:
        return _escaped(outbox_table)
    # Fixed columns, and names of tables, which are quoted.
    parked = f"SELECT {_DEAD_LETTER}, next_attempt_at FROM {_escaped(outbox_table)}"  # noqa: S608
    moved = f"SELECT {_DEAD_LETTER}, CAST(NULL AS timestamptz) FROM {_moved(dlq_table)} AS m"  # noqa: S608
    return f"({parked} UNION ALL {moved})"


def _moved(dlq_table: Table) -> str:
    """Return the dead letters of a dead-letter table that come from this outbox.

    One without an origin is from before the table had a column for it, and is seen by each outbox that has the table.
    A table that has no such column yet can be read all the same: ``outbox`` is the column if there is one, and else
    what the query around offers by that name.
    """
    # Fixed columns, and the name of a table, which is quoted.
    letters = f"SELECT {_DEAD_LETTER}, deduplicate, ctid, tableoid, outbox FROM {_escaped(dlq_table)}"  # noqa: S608
    everyone = f"(SELECT '' AS outbox) AS unknown CROSS JOIN LATERAL ({letters}) AS letter"
    return f"(SELECT letter.* FROM {everyone} WHERE letter.outbox IN ('', {_ORIGIN}))"  # noqa: S608


def _as_dead(table: Table, letters: str, *, meant: str) -> Mapping[str, str]:
    """Return the clauses for one table of dead letters: its name, those of this outbox, and which of them are meant."""
    return {"dead_table": _escaped(table), "letters": letters, "meant": meant}


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
