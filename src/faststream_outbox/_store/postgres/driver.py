"""Hands a statement to the database's driver in the driver's own words."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, TextClause
from sqlalchemy.exc import DBAPIError

Record: TypeAlias = Sequence[Any]
"""One row of an answer; what it holds is read by position."""


class _Written(NamedTuple):
    """A statement as one driver takes it."""

    sql: str
    order: Sequence[str]
    """Of its parameters, which have no names there."""
    constants: Mapping[str, Any]
    """Parameters that the statement brings along."""


class _Answer(NamedTuple):
    rows: Sequence[Record]
    written: int
    """How many rows the statement has returned or written."""


class DriverStatement:
    """A statement that asyncpg is given directly, through the cursor that SQLAlchemy has for it.

    What SQLAlchemy does around a statement takes about as long as what asyncpg does for it. The connection, its
    transactions and what is prepared on it remain SQLAlchemy's business. And SQLAlchemy executes the statement as any
    other where somebody listens to it, where it writes a log, and with other drivers.

    Args:
        statement: Its parameters are given when it runs, as the driver takes them.
    """

    def __init__(self, statement: TextClause) -> None:
        self._statement = statement
        self._written: WeakKeyDictionary[Dialect, _Written] = WeakKeyDictionary()
        self._was_outdated = False

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Record]:
        """Run it, in the transaction of the connection or in one that it begins, and read all rows.

        From async code: ``await connection.run_sync(statement.execute, parameters)``.

        Raises:
            DBAPIError: The database has refused it, or is gone.
        """
        return self._run(connection, parameters).rows

    def write(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it, and return how many rows it has written; else the same as ``execute``."""
        return self._run(connection, parameters).written

    def _run(self, connection: Connection, parameters: Mapping[str, Any]) -> _Answer:
        if self._was_outdated or not _is_asyncpg(connection) or _is_watched(connection):
            return self._by_sqlalchemy(connection, parameters)
        if connection.get_transaction() is None:
            connection.begin()
        if not _is_in_order(connection):
            # SQLAlchemy says what is wrong with it.
            return self._by_sqlalchemy(connection, parameters)
        return self._by_driver(connection, parameters)

    def _by_sqlalchemy(self, connection: Connection, parameters: Mapping[str, Any]) -> _Answer:
        result = connection.execute(self._statement, parameters)
        return _Answer(result.all() if result.returns_rows else [], result.rowcount)

    def _by_driver(self, connection: Connection, parameters: Mapping[str, Any]) -> _Answer:
        dialect = connection.dialect
        written = self._written.get(dialect) or self._write(dialect)
        given = {**written.constants, **parameters}
        cursor = connection.connection.cursor()
        try:
            cursor.execute(written.sql, tuple([given[name] for name in written.order]))
            rows = cursor.fetchall()
        except dialect.loaded_dbapi.Error as error:
            driver: Any = connection.connection.driver_connection
            if driver.is_closed():
                # SQLAlchemy is to find that out, and that the other connections of the pool are lost too.
                return self._by_sqlalchemy(connection, parameters)
            if isinstance(error, dialect.loaded_dbapi.NotSupportedError):
                # An ALTER TABLE has outdated what was prepared before. SQLAlchemy knows how to prepare it anew.
                self._was_outdated = True
            raise DBAPIError.instance(
                written.sql,
                given,
                error,
                dialect.loaded_dbapi.Error,
                hide_parameters=connection.engine.hide_parameters,
                dialect=dialect,
            ) from error
        except BaseException as error:
            if not isinstance(error, Exception):
                # Cancelled: nobody knows what is still to come on it.
                connection.invalidate(error)
            raise
        answer = _Answer(rows, cursor.rowcount)
        cursor.close()
        return answer

    def _write(self, dialect: Dialect) -> _Written:
        compiled: Any = self._statement.compile(dialect=dialect)
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        written = _Written(str(compiled), compiled.positiontup, constants)
        self._written[dialect] = written
        return written


def _is_asyncpg(connection: Connection) -> bool:
    return connection.dialect.driver == "asyncpg"


def _is_watched(connection: Connection) -> bool:
    """Return whether a listener wants to see or to change each statement."""
    if connection.engine.logger.isEnabledFor(logging.INFO):
        return True
    events: Any = connection.dispatch
    driver_events: Any = connection.dialect.dispatch
    return bool(
        events.before_execute
        or events.after_execute
        or events.before_cursor_execute
        or events.after_cursor_execute
        or driver_events.do_execute
        or driver_events.handle_error
    )


def _is_in_order(connection: Connection) -> bool:
    """Return whether the transaction, and the innermost savepoint, can still be used."""
    nested = connection.get_nested_transaction()
    return connection.in_transaction() and (nested is None or nested.is_active)
