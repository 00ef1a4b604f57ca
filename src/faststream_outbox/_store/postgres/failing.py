"""Finds out where a session is used: while an exception closes it, and where it can wait for the database."""

import asyncio
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Session
from sqlalchemy.util import concurrency

# The second is the older name, deprecated from SQLAlchemy 2.2 on.
_await: Any = getattr(concurrency, "await_", None) or concurrency.await_only


def is_failing(session: Session) -> bool:
    """Return whether an exception passes through what closes the session, which is in SQLAlchemy's hands just now.

    Only asked before a warning, so that it may take its time.
    """
    return sys.exception() is not None or _is_failing_outside() or _is_left_with_an_error(session)


def _is_failing_outside() -> bool:
    """Look outside of the greenlet in which SQLAlchemy closes an ``AsyncSession``: within, no exception is seen."""
    try:
        return bool(_await(_sees_an_exception()))
    except MissingGreenlet:
        return False


def can_wait() -> bool:
    """Return whether SQLAlchemy runs this code for an ``AsyncSession``, so that the session can reach the database."""
    try:
        _await(_nothing())
    except MissingGreenlet:
        return False
    return True


async def _nothing() -> None:
    """Wait for nothing."""


async def _sees_an_exception() -> bool:
    return sys.exception() is not None


def _is_left_with_an_error(session: Session) -> bool:
    """Look into the block ``async with AsyncSession()``: at its end SQLAlchemy closes the session in another task."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return False
    return any(
        any(isinstance(value, BaseException) for value in frame.f_locals.values())
        for task in tasks
        for frame in _frames(task.get_coro())
        if frame.f_code.co_name == "__aexit__" and getattr(frame.f_locals.get("self"), "sync_session", None) is session
    )


def _frames(waiting: Any) -> Iterator[FrameType]:
    """Return the frames of a coroutine, and of what it waits for."""
    while waiting is not None:
        frame, following = _step(waiting)
        if frame is None:
            return
        yield frame
        if _step(following)[0] is None:
            # A generator behind ``asynccontextmanager``, as dependencies are, is waited for through an object that
            # does not show it.
            following = getattr(frame.f_locals.get("self"), "gen", None)
        waiting = following


def _step(waiting: Any) -> tuple[FrameType | None, Any]:
    for kind, its in (("cr", "await"), ("ag", "await"), ("gi", "yieldfrom")):
        if hasattr(waiting, f"{kind}_frame"):
            return getattr(waiting, f"{kind}_frame"), getattr(waiting, f"{kind}_{its}")
    return None, None
