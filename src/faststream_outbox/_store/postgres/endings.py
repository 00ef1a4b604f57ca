"""What is done when the transaction of a message ends, as far as SQLAlchemy's session tells of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from faststream_outbox._store.postgres.failing import is_failing

Warn: TypeAlias = Callable[[str], None]


class Ending(NamedTuple):
    """A queue with new rows, and the callbacks for the end of its transaction: for any thread, and never raising."""

    queue: str
    wake: Callable[[str], None] | None = None
    """Is given the queue when the rows are committed, where no notification wakes consumers of this process."""
    warn: Warn | None = None
    """Gets a warning when the session ends with neither a commit nor a rollback."""


_open: WeakKeyDictionary[SessionTransaction, set[Ending]] = WeakKeyDictionary()
"""Of each transaction or savepoint that messages were published in. Not in ``session.info``, which is the caller's."""


def note(session: Session, endings: Iterable[Ending]) -> None:
    """Remember what to do when the session's transaction ends; a savepoint that is rolled back takes its part along."""
    _watch_sessions()
    transaction = session.get_nested_transaction() or session.get_transaction()
    if transaction is not None:
        _add(transaction, endings)


def _add(transaction: SessionTransaction, endings: Iterable[Ending]) -> None:
    noted = _open.get(transaction)
    if noted is None:
        noted = _open[transaction] = set()
    noted.update(endings)


@cache
def _watch_sessions() -> None:
    # Of all sessions: to watch each one costs more than the rest of publishing with it.
    event.listen(Session, "after_commit", _after_commit)
    event.listen(Session, "after_rollback", _after_rollback)
    event.listen(Session, "after_transaction_end", _after_end)


def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        # A savepoint is released; its rows are still to be committed.
        return
    for ending in _take(session.get_transaction()):
        if ending.wake is not None:
            ending.wake(ending.queue)


def _after_rollback(session: Session) -> None:
    _take(session.get_nested_transaction() or session.get_transaction())


def _after_end(session: Session, transaction: SessionTransaction) -> None:
    """Pass on the endings of a released savepoint; warn of an end with neither commit nor rollback."""
    if not (endings := _take(transaction)):
        return
    if transaction.parent is not None:
        _add(transaction.parent, endings)
        return
    warn_of_loss(session, ((ending.warn, ending.queue) for ending in endings))


def warn_of_loss(session: Session, lost: Iterable[tuple[Warn | None, str]]) -> None:
    """Warn of messages that a session takes along, unless an exception is why it ends.

    Args:
        session: Just ending with neither a commit nor a rollback.
        lost: The queue of each message, and who is to be warned of it.
    """
    queues: defaultdict[Warn, set[str]] = defaultdict(set)
    for warn, queue in lost:
        if warn is not None:
            queues[warn].add(queue)
    if queues and not is_failing(session):
        for warn, names in queues.items():
            warn(
                f"a session was closed without commit after messages to {', '.join(map(repr, sorted(names)))} were "
                "published in it: they are lost, with everything else that it wrote. Commit the session, or roll it "
                "back if the messages are not wanted; `async with session.begin():` does one or the other"
            )


def _take(transaction: Any) -> set[Ending]:
    # Most transactions of an application publish nothing.
    return _open.pop(transaction, set()) if _open and transaction is not None else set()
