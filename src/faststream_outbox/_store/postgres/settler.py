"""Writes outcomes: one statement for each kind, however many rows."""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.postgres.driver import DriverStatement
from faststream_outbox._store.postgres.refusals import UNDEFINED_COLUMN, refusal_in
from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.outcome import (
    Dead,
    Deferred,
    Delivered,
    Outcome,
    Released,
    Retry,
    Settlement,
    TextOf,
    Unwritten,
    describe,
    in_ascii,
)
from faststream_outbox._values.row import OutboxRow, identity

CAREFUL_SECONDS = 600.0
"""For how long, after a transaction was lost to an outcome, every statement gets a savepoint. Several times as long as
what was refused waits before it is tried again."""


class RowKeptError(Exception):
    """A statement was carried out, and the table has kept a row as it was."""

    def __init__(self) -> None:
        super().__init__(
            "the table keeps the row: a trigger of its owner's suppresses the write (one before DELETE has to return "
            "OLD, not NEW or NULL), or a policy of row-level security hides the row from it"
        )


class PositionsLostError(Exception):
    """Somebody else has written a shard's position while this process had the lock of the shard."""

    def __init__(self) -> None:
        super().__init__("the position table has changed during a hand-over, by another hand than a forwarder's")


class Mover(Protocol):
    """What moves with the rows that are delivered."""

    def with_rows(self, way: "Way", connection: Connection) -> "Way":
        """Return a way that writes both in one statement."""

    def move(self, connection: Connection) -> None:
        """Write it alone; raise a PositionsLostError if that is not possible."""


class Way(NamedTuple):
    """Which outcomes a statement writes, and which of their parts it takes under which name."""

    kind: type[Outcome]
    statement: DriverStatement
    parts: Mapping[str, str]
    is_meant: Callable[[Any], bool] = lambda _outcome: True
    """Of those of its kind."""
    before: DriverStatement | None = None
    """The same for a table that has not got its newest column yet."""
    otherwise: "Way | None" = None
    """How dead letters are kept that this statement cannot move."""
    beside: Mapping[str, Any] = {}
    """Parameters that are not of the outcomes."""
    check: Callable[[], None] = lambda: None
    """Called where rows were left out; raises if that is not due to the rows."""


class Settler:
    """Writes outcomes to one pair of tables.

    What PostgreSQL refuses for good harms its own row alone: the rest is written without it. Within a transaction that
    takes a savepoint. To spare the ordinary hand-over its round trips, in which all rows were delivered, there is none
    for these until one was needed.

    Args:
        statements: For these tables.
        text_of: Returns what is kept of exceptions.
    """

    def __init__(self, statements: Statements, *, text_of: TextOf = describe) -> None:
        self._text_of = text_of
        reason = {"reasons": "reason", "exceptions": "exception"}
        self._unsettled = statements.unsettled
        parked = Way(Dead, statements.settle_dead_parked, {**reason, "holds": "holds_key"})
        self._ways = [
            Way(Delivered, statements.settle_delivered, {}),
            Way(Retry, statements.settle_retry, {"delays": "delay", "exceptions": "exception"}),
            Way(Released, statements.settle_released, {"started": "started"}),
            Way(Deferred, statements.settle_deferred, {"delays": "delay", "slots": "slot"}),
        ]
        if (moved := statements.settle_dead_moved) is None:
            self._ways.append(parked)
        else:
            self._ways += [
                parked._replace(is_meant=lambda dead: dead.holds_key),
                Way(
                    Dead,
                    moved,
                    reason,
                    lambda dead: not dead.holds_key,
                    before=statements.settle_dead_moved_before,
                    otherwise=parked,
                ),
            ]
        self._careful_until = 0.0

    def is_careful_after(self, error: DBAPIError) -> bool:
        """Return whether a transaction was lost to an outcome that is refused; the next ones then get savepoints."""
        if refusal_in(error) is None:
            return False
        self._careful_until = time.monotonic() + CAREFUL_SECONDS
        return True

    async def write(
        self,
        connection: AsyncConnection,
        settlements: Sequence[Settlement],
        *,
        token: str | None,
        moving: "Mover | None" = None,
    ) -> Sequence[Unwritten]:
        """Write outcomes, and return those that are refused.

        A row that this token and delivery no longer hold is left alone. What is to be moved moves with the rows that
        are delivered.

        Raises:
            DBAPIError: The connection, or its transaction, cannot be used any more.
            PositionsLostError: Another process has written the positions. The transaction must not be committed.
        """
        return await connection.run_sync(self._write, settlements, token, moving)

    def _write(
        self, connection: Connection, settlements: Sequence[Settlement], token: str | None, moving: "Mover | None"
    ) -> Sequence[Unwritten]:
        by_kind: defaultdict[type[Outcome], list[Settlement]] = defaultdict(list)
        for settlement in settlements:
            by_kind[type(settlement.outcome)].append(settlement)
        is_transaction = connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT"
        is_careful = is_transaction and time.monotonic() < self._careful_until
        if is_careful:
            # So that a constraint which the owner has deferred speaks at its row, and not at the commit.
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        refused: list[Unwritten] = []
        for way in self._ways:
            chosen = [each for each in by_kind[way.kind] if way.is_meant(each.outcome)]
            if chosen:
                mover = moving if way.kind is Delivered else None
                is_usual = is_transaction and not is_careful and way.kind is Delivered
                writer = _KindWriter(
                    connection,
                    token,
                    isolates=not is_usual,
                    saves=is_transaction and not is_usual,
                    unsettled=self._unsettled if token is None else None,
                    text_of=self._text_of,
                )
                if mover is not None and is_usual:
                    way = mover.with_rows(way, connection)  # noqa: PLW2901 - the same way, with more to carry
                elif mover is not None:
                    mover.move(connection)
                refused += writer.write(way, chosen)
        if moving is not None and not by_kind[Delivered]:
            moving.move(connection)
        if not refused:
            return refused
        if is_transaction:
            # What is refused comes again: each time that the care had ended, it would cost a whole hand-over.
            self._careful_until = time.monotonic() + CAREFUL_SECONDS
        # What was tried last may say more than what was handed in.
        handed_in = {identity(settlement.row): settlement for settlement in settlements}
        return [each._replace(settlement=handed_in[identity(each.settlement.row)]) for each in refused]


class _KindWriter:
    """Writes outcomes of one kind, on one connection.

    Args:
        connection: In a transaction, or in AUTOCOMMIT, where each statement is one.
        token: Of those who hold the rows.
        isolates: Whether rows that are refused are set apart; else a refusal is raised.
        saves: Whether that takes savepoints.
        unsettled: Tells which rows a statement has left as they were; None where that is nothing strange, since others
            may have the lease by now.
        text_of: Returns what is kept of exceptions.
    """

    def __init__(
        self,
        connection: Connection,
        token: str | None,
        *,
        isolates: bool,
        saves: bool,
        unsettled: DriverStatement | None,
        text_of: TextOf,
    ) -> None:
        self._connection = connection
        self._token = token
        self._isolates = isolates
        self._saves = saves
        self._unsettled = unsettled
        self._text_of = text_of

    def write(self, way: Way, settlements: Sequence[Settlement]) -> Sequence[Unwritten]:
        refused = self._isolate(way, settlements)
        if refused and way.before is not None and _lacks_column(refused):
            return self.write(way._replace(statement=way.before, before=None), [each.settlement for each in refused])
        if refused and way.otherwise is not None:
            return self.write(way.otherwise, [_not_moved(each, self._text_of) for each in refused])
        return refused

    def _isolate(self, way: Way, settlements: Sequence[Settlement]) -> list[Unwritten]:
        """Write what can be written; return the rest.

        What is refused is divided until the refused rows stand alone, or until so much is refused that it seems to be
        all: then each part that is left is tried once, and what is refused is tried again by those who handed it in.
        """
        refused: list[Unwritten] = []
        batches = [settlements]
        in_a_row = 0
        while batches:
            batch = batches.pop()
            try:
                written = self._execute(way, batch)
            except DBAPIError as error:
                refusal = refusal_in(error)
                if refusal is None or not self._isolates:
                    raise
                if refusal.is_untranslatable and batch != (escaped := [_in_ascii(each) for each in batch]):
                    batches.append(escaped)
                    continue
                in_a_row += 1
                if len(batch) == 1 or in_a_row >= refusal.splits:
                    refused += [Unwritten(settlement, refusal.error) for settlement in batch]
                else:
                    # In another order each time: refused rows that stand together hide the others among them.
                    mixed = random.sample(batch, len(batch))
                    batches += [mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]]
            else:
                in_a_row = 0
                if written < len(batch):
                    way.check()
                    refused += self._kept(batch)
        return refused

    def _kept(self, settlements: Sequence[Settlement]) -> list[Unwritten]:
        """Return outcomes that a statement has left out in silence, although their rows are locked by us."""
        if self._unsettled is None:
            return []
        rows = [row for row, _ in settlements]
        parameters = {**fence(rows), "attempts": [row.attempts_count for row in rows]}
        kept = {record[0] for record in self._unsettled.execute(self._connection, parameters)}
        return [Unwritten(settlement, RowKeptError()) for settlement in settlements if settlement.row.id in kept]

    def _execute(self, way: Way, settlements: Sequence[Settlement]) -> int:
        parameters: dict[str, Any] = {**fence([row for row, _ in settlements]), "token": self._token, **way.beside}
        for name, part in way.parts.items():
            parameters[name] = [getattr(outcome, part) for _, outcome in settlements]
        if not self._saves:
            return way.statement.write(self._connection, parameters)
        savepoint = self._connection.begin_nested()
        try:
            written = way.statement.write(self._connection, parameters)
        except DBAPIError as error:
            if refusal_in(error) is not None:
                savepoint.rollback()
            raise
        savepoint.commit()
        return written


def fence(rows: Sequence[OutboxRow]) -> dict[str, Any]:
    """Return the parameters by which a statement finds rows, and a stale holder's writes match nothing."""
    return {"ids": [row.id for row in rows], "deliveries": [row.deliveries_count for row in rows]}


def _lacks_column(refused: Sequence[Unwritten]) -> bool:
    return getattr(refused[0].error, "sqlstate", None) == UNDEFINED_COLUMN


def _not_moved(unwritten: Unwritten, text_of: TextOf) -> Settlement:
    """Return a dead letter whose error says why it is parked and not in the dead-letter table."""
    row, dead = unwritten.settlement
    assert isinstance(dead, Dead)  # noqa: S101 - nothing else moves
    text = f"not moved to the dead-letter table: {text_of(unwritten.error)}"
    return Settlement(row, replace(dead, exception=text if dead.exception is None else f"{dead.exception}; {text}"))


def _in_ascii(settlement: Settlement) -> Settlement:
    row, outcome = settlement
    if not isinstance(outcome, Retry | Dead):
        return settlement
    return Settlement(row, replace(outcome, exception=in_ascii(outcome.exception)))
