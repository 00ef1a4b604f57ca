"""Runs statements in the caller's own transaction, whatever kind of session the caller has."""

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from faststream_outbox._store.postgres.endings import Ending, note
from faststream_outbox._store.postgres.target import SessionTarget
from faststream_outbox.exceptions import InvalidSessionError

T = TypeVar("T")

AnySession: TypeAlias = AsyncSession | AsyncConnection
"""What the broker's methods are declared to take."""

AnyAsyncSession: TypeAlias = "AsyncSession | AsyncConnection | async_scoped_session[AsyncSession]"
AnySyncSession: TypeAlias = "Session | Connection | scoped_session[Session]"

ALREADY_FLUSHING = "already flushing"
"""What SQLAlchemy says to a flush within a flush: in a listener to ``before_flush``, ``after_flush`` and the like."""


async def run_in_session(
    session: AnyAsyncSession,
    work: Callable[[Connection], T],
    target: SessionTarget,
    *,
    flush: bool = False,
    endings: Iterable[Ending] = (),
) -> T:
    """Run ``work`` on the connection of an async session, in its transaction.

    Args:
        session: The caller's session or connection.
        work: Gets the synchronous connection; runs in SQLAlchemy's greenlet.
        target: What the work is about, and what it asks of a session.
        flush: Write the session's pending changes first. Within a flush that is under way, they are on their way.
        endings: For when the session's transaction ends. A connection does not say when it does.

    Raises:
        InvalidSessionError: It is something else, it is closed for good, or ``target`` refuses it.
    """
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        return await session.run_sync(
            lambda plain: run_in_plain_session(plain, work, target, asynchronous=True, flush=flush, endings=endings)
        )
    if isinstance(session, AsyncConnection):
        if not _is_open(session):
            msg = "session: the AsyncConnection is closed, or was never opened"
            raise InvalidSessionError(msg)
        return await session.run_sync(lambda connection: _run_on_connection(connection, work, target))
    msg = f"session: must be an AsyncSession or AsyncConnection, got {type(session).__name__}"
    if isinstance(session, Session | Connection):
        msg += f"; use {target.sync_call} with it"
    raise InvalidSessionError(msg)


def run_in_sync_session(
    session: AnySyncSession,
    work: Callable[[Connection], T],
    target: SessionTarget,
    *,
    flush: bool = False,
    endings: Iterable[Ending] = (),
) -> T:
    """Run ``work`` as ``run_in_session`` does, for a plain SQLAlchemy ``Session`` or ``Connection``."""
    if isinstance(session, scoped_session):
        session = session()
    if isinstance(session, Session):
        return run_in_plain_session(session, work, target, asynchronous=False, flush=flush, endings=endings)
    if isinstance(session, Connection):
        return _run_on_connection(session, work, target)
    msg = f"session: must be a Session or Connection, got {type(session).__name__}"
    if isinstance(session, AsyncSession | AsyncConnection):
        msg += f"; use {target.async_call} with it"
    raise InvalidSessionError(msg)


def _is_open(connection: AsyncConnection) -> bool:
    try:
        return not connection.closed
    except InvalidRequestError:
        # Neither awaited nor entered.
        return False


def run_in_plain_session(
    session: Session,
    work: Callable[[Connection], T],
    target: SessionTarget,
    *,
    asynchronous: bool,
    flush: bool = False,
    endings: Iterable[Ending] = (),
) -> T:
    """Run ``work`` as ``run_in_session`` does, on the session that SQLAlchemy's listeners get.

    Args:
        session: The session itself, or the one within an ``AsyncSession``.
        work: Gets the connection.
        target: What the work is about, and what it asks of a session.
        asynchronous: Whether it is within an ``AsyncSession``.
        flush: Write the session's pending changes first.
        endings: For when the session's transaction ends.

    Raises:
        InvalidSessionError: See ``run_in_session``.
    """
    try:
        connection = target.connection_of(session, asynchronous=asynchronous)
    except (InvalidRequestError, ResourceClosedError) as error:
        # SQLAlchemy's word for a session that was closed for good, or whose transaction failed before.
        msg = f"session: cannot be used: {error}"
        raise InvalidSessionError(msg) from error
    if flush:
        # Not before: objects that are written may be gone then, and with them what a session's ``binds`` know of them.
        _flush(session)
    result = _run_on_connection(connection, work, target)
    if connection is session.bind:
        # Begun outside of the session, and ended there.
        endings = [ending._replace(warn=None) for ending in endings]
    note(session, endings)
    return result


def _flush(session: Session) -> None:
    try:
        session.flush()
    except InvalidRequestError as error:
        # What else is wrong with a session has the same class, and SQLAlchemy has no public way to ask before.
        if ALREADY_FLUSHING not in str(error):
            raise


def _run_on_connection(connection: Connection, work: Callable[[Connection], T], target: SessionTarget) -> T:
    if connection.closed:
        msg = "session: the Connection is closed"
        raise InvalidSessionError(msg)
    target.check(connection)
    return work(connection)
