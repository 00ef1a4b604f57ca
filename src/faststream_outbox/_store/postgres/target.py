"""Which table statements in the caller's transaction are about, and what such a transaction must be like."""

from typing import Any

from sqlalchemy import Connection, Engine, Table, TwoPhaseTransaction, insert, inspect
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from typing_extensions import override

from faststream_outbox._store.postgres.tenants import schema_in, translated
from faststream_outbox.exceptions import InvalidSessionError


class SessionTarget:
    """A table that is written in whatever transaction the caller has, and in the schema that the caller's session says.

    Args:
        declared: The table.
        is_undone: Whether what is done there must be undone when the caller's transaction is rolled back.
    """

    sync_call = "publish_sync"
    """What a caller with a plain ``Session`` or ``Connection`` calls, for messages."""
    async_call = "publish"
    """What a caller with an ``AsyncSession`` or ``AsyncConnection`` calls."""
    harm = "the message would stay without the work"
    """What AUTOCOMMIT would do."""

    def __init__(self, declared: Table, *, is_undone: bool) -> None:
        self._declared = declared
        self._engine: Engine | None = None
        self._is_undone = is_undone
        # What sessions with several databases choose by; to make one takes as long as a tenth of publishing.
        self._clause = insert(declared)

    def connection_of(self, session: Session, *, asynchronous: bool) -> Connection:
        """Return the connection of a session's transaction, to the database that the table is in for the session.

        Args:
            session: The caller's.
            asynchronous: Whether it is an ``AsyncSession``'s, which can use the broker's engine.

        Raises:
            InvalidRequestError: SQLAlchemy says what is wrong with the session.
            InvalidSessionError: The session has several databases, and does not say in which one the table is.
        """
        try:
            return session.connection(bind_arguments={"clause": self._clause})
        except UnboundExecutionError:
            bind = self._bind_beside(session, asynchronous=asynchronous)
        if bind is None:
            msg = (
                f"session: cannot be used: its binds do not say in which database {self._declared.name!r} is; "
                "add the table to binds=, as in binds={Base: engine, outbox_table: engine}"
            )
            raise InvalidSessionError(msg)
        return session.connection(bind_arguments={"bind": bind})

    def check_session(self, session: Session) -> None:
        """Refuse what can be seen of a session without its connection; ``check`` sees the rest.

        Raises:
            InvalidSessionError: It is bound to another kind of database.
        """
        try:
            bind = session.get_bind(clause=self._clause)
        except UnboundExecutionError:
            # It may have objects, and with them a database, before it is used.
            return
        _check_dialect(bind.dialect.name)

    def check(self, connection: Connection) -> None:
        """Refuse a connection on which the work would not be what it seems.

        Raises:
            InvalidSessionError: It is to another kind of database, or not within a transaction.
        """
        _check_dialect(connection.dialect.name)
        if self._is_undone and _is_autocommit(connection):
            msg = (
                f"session: its connection is in AUTOCOMMIT, where a rollback undoes nothing: {self.harm}; "
                'give its engine or connection isolation_level="READ COMMITTED", or leave it out'
            )
            raise InvalidSessionError(msg)

    def _bind_beside(self, session: Session, *, asynchronous: bool) -> Any:
        """Return where a session whose ``binds`` do not name the table has its objects; without any, the broker's.

        What is written is to be committed with its objects. With objects in several databases, it is the broker's if
        that is one of them.
        """
        binds = set()
        for mapper in {inspect(instance).mapper for instance in session}:
            try:
                binds.add(session.get_bind(mapper))
            except UnboundExecutionError:
                continue
        if len(binds) == 1:
            return binds.pop()
        return self._engine if self._engine in binds or (asynchronous and not binds) else None


class Target(SessionTarget):
    """The outbox table where a broker's consumers look for rows.

    Args:
        engine: The broker's.
        declared: The table, made by ``make_outbox_table``.
        is_undone: Whether what is done there must be undone when the caller's transaction is rolled back.
        notifies: Whether the work sends notifications, which PostgreSQL refuses to prepare.
    """

    def __init__(self, engine: AsyncEngine, declared: Table, *, is_undone: bool, notifies: bool = False) -> None:
        super().__init__(declared, is_undone=is_undone)
        self._notifies = notifies
        self.table = translated(declared, engine)
        """As the engine's ``schema_translate_map`` has it."""
        self._engine = engine.sync_engine

    @override
    def check_session(self, session: Session) -> None:
        """Refuse what ``SessionTarget`` refuses, and NOTIFY before a two-phase commit."""
        super().check_session(session)
        if session.twophase:
            self._check_two_phases()

    @override
    def check(self, connection: Connection) -> None:
        """Refuse what ``SessionTarget`` refuses, another tenant's connection, and NOTIFY before a two-phase commit."""
        super().check(connection)
        if isinstance(connection.get_transaction(), TwoPhaseTransaction):
            self._check_two_phases()
        schema = schema_in(connection.get_execution_options(), self._declared.schema)
        if schema != self.table.schema:
            msg = (
                f"session: its schema_translate_map puts {self._declared.name!r} into {_shown(schema)}, and this "
                f"broker works in {_shown(self.table.schema)}; publish with a broker for that schema: "
                "OutboxBroker(engine.execution_options(schema_translate_map=...), ...)"
            )
            raise InvalidSessionError(msg)

    def _check_two_phases(self) -> None:
        if self._notifies:
            msg = (
                "session: its transaction is committed in two phases (twophase=True), and PostgreSQL does not prepare "
                "one that has notified; write OutboxBroker(..., notify=False), and consumers look by themselves"
            )
            raise InvalidSessionError(msg)


def _check_dialect(name: str) -> None:
    if name != "postgresql":
        msg = f"session: must be bound to PostgreSQL, got {name}"
        raise InvalidSessionError(msg)


def _is_autocommit(connection: Connection) -> bool:
    # By what the driver does, since it may have been set on the engine, the session or the connection.
    if connection.invalidated:
        return False
    driver: Any = connection.connection.dbapi_connection
    return bool(getattr(driver, "autocommit", False))


def _shown(schema: str | None) -> str:
    return "the schema of the search path" if schema is None else f"schema {schema!r}"
