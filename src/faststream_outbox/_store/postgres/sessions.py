"""Runs statements in the caller's own transaction, whatever kind of session the caller has."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from faststream_outbox._store.postgres.hints import Hint, give_after_commit
from faststream_outbox.exceptions import InvalidSessionError

T = TypeVar("T")

AnyAsyncSession: TypeAlias = "AsyncSession | AsyncConnection | async_scoped_session[AsyncSession]"
AnySyncSession: TypeAlias = "Session | Connection | scoped_session[Session]"


async def run_in_session(
    session: AnyAsyncSession, work: Callable[[Connection], T], *, flush: bool = False, hints: Sequence[Hint] = ()
) -> T:
    """Run ``work`` on the connection of an async session, in its transaction.

    Args:
        session: The caller's session or connection.
        work: Gets the synchronous connection; runs in SQLAlchemy's greenlet.
        flush: Write the session's pending changes first.
        hints: To be given when the session has committed. A connection does not say when it has.

    Raises:
        InvalidSessionError: It is something else, it is closed, or its database is not PostgreSQL.
    """
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        return await session.run_sync(lambda plain: _run_in_sync_session(plain, work, flush=flush, hints=hints))
    if isinstance(session, AsyncConnection):
        if not _is_open(session):
            msg = "session: the AsyncConnection is closed, or was never opened"
            raise InvalidSessionError(msg)
        return await session.run_sync(lambda connection: _run_on_connection(connection, work))
    msg = f"session: must be an AsyncSession or AsyncConnection, got {type(session).__name__}"
    if isinstance(session, Session | Connection):
        msg += "; use publish_sync with it"
    raise InvalidSessionError(msg)


def run_in_sync_session(
    session: AnySyncSession, work: Callable[[Connection], T], *, flush: bool = False, hints: Sequence[Hint] = ()
) -> T:
    """The same for a plain SQLAlchemy ``Session`` or ``Connection``."""
    if isinstance(session, scoped_session):
        session = session()
    if isinstance(session, Session):
        return _run_in_sync_session(session, work, flush=flush, hints=hints)
    if isinstance(session, Connection):
        return _run_on_connection(session, work)
    msg = f"session: must be a Session or Connection, got {type(session).__name__}"
    if isinstance(session, AsyncSession | AsyncConnection):
        msg += "; use publish with it"
    raise InvalidSessionError(msg)


def _is_open(connection: AsyncConnection) -> bool:
    try:
        return not connection.closed
    except InvalidRequestError:
        # Neither awaited nor entered.
        return False


def _run_in_sync_session(session: Session, work: Callable[[Connection], T], *, flush: bool, hints: Sequence[Hint]) -> T:
    if flush:
        session.flush()
    try:
        connection = session.connection()
    except (InvalidRequestError, ResourceClosedError) as error:
        # SQLAlchemy's word for a session that was closed for good, or whose transaction failed before.
        msg = f"session: cannot be used: {error}"
        raise InvalidSessionError(msg) from error
    result = _run_on_connection(connection, work)
    if hints:
        give_after_commit(session, hints)
    return result


def _run_on_connection(connection: Connection, work: Callable[[Connection], T]) -> T:
    if connection.closed:
        msg = "session: the Connection is closed"
        raise InvalidSessionError(msg)
    if connection.dialect.name != "postgresql":
        msg = f"session: must be bound to PostgreSQL, got {connection.dialect.name}"
        raise InvalidSessionError(msg)
    return work(connection)
