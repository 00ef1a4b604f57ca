"""Wakes consumers of this process when a session has committed, where no notification will."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

from sqlalchemy import event
from sqlalchemy.orm import Session

_PENDING = f"{__name__}: pending"


class Hint(NamedTuple):
    """A queue that has new rows, and how to say so: from any thread, and without raising."""

    wake: Callable[[str], None]
    queue: str

    def give(self) -> None:
        self.wake(self.queue)


def give_after_commit(session: Session, hints: Iterable[Hint]) -> None:
    """Give hints once the session's transaction is committed.

    After a rollback they stay for the session's next commit, where they cost a look in vain.
    """
    _watch_commits()
    session.info.setdefault(_PENDING, set()).update(hints)


@cache
def _watch_commits() -> None:
    # Of all sessions: to watch each one costs more than the rest of publishing with it.
    event.listen(Session, "after_commit", _note_commit)


def _note_commit(session: Session) -> None:
    if session.in_nested_transaction():
        # A savepoint is released; its rows are still to be committed.
        return
    for hint in session.info.pop(_PENDING, ()):
        hint.give()
