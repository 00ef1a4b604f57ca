"""Messages that wait in a SQLAlchemy session, until its flush or its commit writes them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from faststream_outbox._store.postgres.endings import Ending, Warn, note, warn_of_loss
from faststream_outbox._store.postgres.failing import can_wait
from faststream_outbox._store.postgres.sessions import run_in_plain_session
from faststream_outbox._store.postgres.target import Target
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.staged import Noted, StagedMessage
from faststream_outbox.exceptions import InvalidSessionError

StagingSession: TypeAlias = "AsyncSession | async_scoped_session[AsyncSession] | Session | scoped_session[Session]"
"""What tells of its flush, its commit and its end."""

Insert: TypeAlias = Callable[[Connection, Sequence[Draft]], Sequence[int | None]]
"""Writes messages in their order, and returns the id of each; None where it is a live duplicate."""


class Stager:
    """Gathers messages of one broker in its callers' sessions.

    A message is written by the flush that follows, together with the objects that this flush writes, or before the
    commit, whichever is first. All that wait then are one statement, in the order of the calls. In a savepoint they
    wait until it is released: a rollback of it takes its messages alone, and has no row to take back.

    Three events lead to the write. ``after_flush_postexec`` comes behind all listeners that stage during a flush.
    ``before_commit`` writes if nothing is left to flush. What is staged behind it, by other listeners or in a flush
    that then finds no work, is written by the connection's own ``commit``, just before COMMIT.

    Args:
        target: What is asked of a session.
        insert: Writes the messages.
        endings: Of a message, for when the transaction that has written it ends.
        warn: Gets a warning for messages that are lost because a session ended without commit.
    """

    def __init__(
        self, target: Target, insert: Insert, endings: Callable[[Draft], Sequence[Ending]], warn: Warn | None
    ) -> None:
        self._target = target
        self._insert = insert
        self._endings = endings
        self.warn = warn
        # Now, since a listener to ``before_commit`` may be the first who stages.
        _watch_sessions()

    def stage(self, session: StagingSession, draft: Draft, message: StagedMessage, noted: Noted) -> None:
        """Put a message into a session, which writes it with its flush or its commit.

        Args:
            session: The caller's. A transaction begins in it, if there is none.
            draft: The message.
            message: Is told when it is written.
            noted: Is told of each queue what one statement has written.

        Raises:
            InvalidSessionError: It is no session, or cannot write any more.
        """
        plain = _plain(session)
        self._target.check_session(plain)
        staged = _staged_in(_open_transaction(plain))
        staged.waiting.append(_StagedDraft(self, draft, message, noted))
        try:
            self._follow_commit(plain)
        except BaseException:
            staged.waiting.pop()
            raise

    def _follow_commit(self, session: Session) -> None:
        """See to it that a message is written that is staged while the session commits."""
        root = _staged_in(session.get_transaction())
        if not root.is_committing:
            return
        if async_session(session) is None or can_wait():
            self.write_before_commit(session, root)
        else:
            # No part of a commit is outside of SQLAlchemy's greenlet: an earlier commit has failed on its way.
            root.is_committing = False

    def write_before_commit(self, session: Session, root: "_Staged") -> None:
        """Have what waits written just before the connection's COMMIT."""
        connection = self._target.connection_of(session, asynchronous=async_session(session) is not None)
        if connection is session.bind:
            # Who has begun it commits it, perhaps long after the session.
            if not session.in_nested_transaction():
                self.write(session, root)
        elif root.connections.get(self) is not connection:
            root.connections[self] = connection
            write = partial(self._write_on, session, root)
            event.listen(connection, "commit", write)
            event.listen(connection, "prepare_twophase", lambda preparing, _xid: write(preparing))

    def write(self, session: Session, root: "_Staged") -> None:
        """Write what waits in a session's transaction."""
        self._write(
            root,
            lambda work, endings: run_in_plain_session(
                session, work, self._target, asynchronous=async_session(session) is not None, endings=endings
            ),
        )

    def _write_on(self, session: Session, root: "_Staged", connection: Connection) -> None:
        """Write what waits on a connection that is about to commit, where the session gives no connection any more."""

        def run(work: Callable[[Connection], Sequence[int | None]], endings: set[Ending]) -> Sequence[int | None]:
            self._target.check(connection)
            ids = work(connection)
            note(session, endings)
            return ids

        self._write(root, run)

    def _write(
        self, root: "_Staged", run: Callable[[Callable[[Connection], Sequence[int | None]], set[Ending]], Any]
    ) -> None:
        waiting = [each for each in root.waiting if each.stager is self]
        if not waiting:
            return
        began = time.monotonic()
        drafts = [each.draft for each in waiting]
        endings = {ending for draft in drafts for ending in self._endings(draft)}
        ids = run(lambda connection: self._insert(connection, drafts), endings)
        root.waiting = [each for each in root.waiting if each.stager is not self]
        counts: dict[str, list[int]] = {}
        for each, row_id in zip(waiting, ids, strict=True):
            each.message.id, each.message.is_written = row_id, True
            root.written.append(each.message)
            counts.setdefault(each.draft.queue, [0, 0])[row_id is None] += 1
        seconds = time.monotonic() - began
        for queue, (rows, duplicates) in counts.items():
            waiting[0].noted(queue, rows=rows, duplicates=duplicates, seconds=seconds)


class _StagedDraft(NamedTuple):
    stager: Stager
    draft: Draft
    message: StagedMessage
    noted: Noted


@dataclass(slots=True, eq=False)
class _Staged:
    """What was staged in a transaction or savepoint of a session."""

    waiting: list[_StagedDraft] = field(default_factory=list)
    written: list[StagedMessage] = field(default_factory=list)
    is_committing: bool = False
    """Whether it commits: nothing but a flush or the COMMIT itself may follow. A savepoint is released then."""
    connections: dict[Stager, Connection] = field(default_factory=dict)
    """Those that write what waits before their COMMIT."""


_open: WeakKeyDictionary[SessionTransaction, _Staged] = WeakKeyDictionary()
"""Not in ``session.info``, which is the caller's."""


def _plain(session: Any) -> Session:
    if isinstance(session, async_scoped_session | scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        session = session.sync_session
    if isinstance(session, Session):
        return session
    msg = f"session: must be an AsyncSession or Session, got {type(session).__name__}"
    if isinstance(session, AsyncConnection | Connection):
        instead = "publish" if isinstance(session, AsyncConnection) else "publish_sync"
        msg += f", which gathers nothing until its commit; use {instead} with it"
    raise InvalidSessionError(msg)


def _open_transaction(session: Session) -> SessionTransaction:
    """Return the innermost savepoint, or the transaction, which begins as with ``session.add``."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is None:
        if not session.autobegin:
            msg = "session: has no transaction, and autobegin=False; begin one before you stage"
            raise InvalidSessionError(msg)
        try:
            transaction = session.begin()
        except InvalidRequestError as error:
            # SQLAlchemy's word for a session that was closed for good.
            msg = f"session: cannot be used: {error}"
            raise InvalidSessionError(msg) from error
    if not transaction.is_active:
        msg = "session: its transaction is over (committed, or failed and not rolled back yet), and writes nothing more"
        raise InvalidSessionError(msg)
    return transaction


def _staged_in(transaction: SessionTransaction | None) -> _Staged:
    if transaction is None:
        # Of a session that is just ending; what is noted there concerns nobody.
        return _Staged()
    staged = _open.get(transaction)
    if staged is None:
        staged = _open[transaction] = _Staged()
    return staged


def _levels(session: Session) -> Iterator[_Staged]:
    """Return what was staged in the innermost savepoint, in those around it, and in the transaction."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        if (staged := _open.get(transaction)) is not None:
            yield staged
        transaction = transaction.parent


@cache
def _watch_sessions() -> None:
    # Of all sessions: to watch each one costs more than to look whether anything was staged in it.
    event.listen(Session, "before_commit", _before_commit)
    event.listen(Session, "after_flush_postexec", _after_flush)
    event.listen(Session, "after_commit", _after_commit)
    event.listen(Session, "after_rollback", _after_rollback)
    event.listen(Session, "after_transaction_end", _after_end)


def _before_commit(session: Session) -> None:
    _note_commit(session)
    root = _staged_in(session.get_transaction())
    stagers = _stagers(each for staged in _levels(session) for each in staged.waiting)
    # A savepoint may be open when the transaction around it commits. Changes are flushed only now, and are to be
    # locked before the messages.
    waits = session.in_nested_transaction() or _has_changes(session)
    for stager in stagers:
        if waits:
            stager.write_before_commit(session, root)
        else:
            stager.write(session, root)


def _note_commit(session: Session) -> None:
    """Note what commits, which the event does not tell.

    It is the innermost savepoint or the transaction. Where that is noted already, what is around it commits: it has
    had this event first, and releases its savepoints, each of which has the event too.
    """
    transaction = session.get_nested_transaction() or session.get_transaction()
    is_noted = True
    while is_noted and transaction is not None:
        staged = _staged_in(transaction)
        is_noted, staged.is_committing = staged.is_committing, True
        transaction = transaction.parent


def _after_flush(session: Session, _context: Any) -> None:
    if session.in_nested_transaction():
        return
    transaction = session.get_transaction()
    root = None if transaction is None else _open.get(transaction)
    if root is not None:
        for stager in _stagers(root.waiting):
            stager.write(session, root)


def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    staged = _take(session.get_transaction())
    if staged is not None and staged.waiting:
        _warn(session, staged)


def _after_rollback(session: Session) -> None:
    _undo(_take(session.get_nested_transaction() or session.get_transaction()))


def _after_end(session: Session, transaction: SessionTransaction) -> None:
    """Pass on what was staged in a released savepoint; warn of what a session that was closed has not written."""
    staged = _take(transaction)
    if staged is None:
        return
    if transaction.parent is not None:
        _staged_in(transaction.parent).waiting.extend(staged.waiting)
        return
    _undo(staged)
    if staged.waiting:
        _warn(session, staged)


def _warn(session: Session, staged: _Staged) -> None:
    warn_of_loss(session, ((each.stager.warn, each.draft.queue) for each in staged.waiting))


def _undo(staged: _Staged | None) -> None:
    for message in () if staged is None else staged.written:
        message.id, message.is_written = None, False


def _take(transaction: SessionTransaction | None) -> _Staged | None:
    return _open.pop(transaction, None) if transaction is not None else None


def _stagers(waiting: Any) -> Sequence[Stager]:
    return list(dict.fromkeys(each.stager for each in waiting))


def _has_changes(session: Session) -> bool:
    return bool(session.new or session.deleted or session.identity_map.check_modified())
