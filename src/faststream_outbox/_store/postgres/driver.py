"""Hands a statement to the database's driver in the driver's own words."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, CursorResult, Dialect, TextClause


class DriverStatement:
    """A statement that is written for a driver once, and not looked up in SQLAlchemy's cache each time it runs.

    Args:
        statement: All of its parameters are given when it runs, as the driver takes them.
    """

    def __init__(self, statement: TextClause) -> None:
        self._statement = statement
        # For each engine's dialect: the SQL, and the order of its parameters where they have no names.
        self._written: WeakKeyDictionary[Dialect, tuple[str, tuple[str, ...] | None]] = WeakKeyDictionary()

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        """Run it; events, echo and errors are those of ``Connection.execute``, but for the note ``[raw sql]``."""
        events: Any = connection.dispatch
        if events.before_execute or events.after_execute:
            # These two are told of nothing that is in a driver's words.
            return connection.execute(self._statement, parameters)
        written = self._written.get(connection.dialect)
        if written is None:
            written = self._written[connection.dialect] = self._write(connection.dialect)
        sql, order = written
        values = dict(parameters) if order is None else tuple([parameters[name] for name in order])
        return connection.exec_driver_sql(sql, values)

    def _write(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
        compiled: Any = self._statement.compile(dialect=dialect)
        return str(compiled), None if compiled.positiontup is None else tuple(compiled.positiontup)
