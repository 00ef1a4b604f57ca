"""``broker.dead_letters``: look at rows that failed for good, send them again, or let them go."""

from collections.abc import Sequence
from datetime import datetime

from typing_extensions import TypedDict, Unpack

from faststream_outbox._store.protocol import DeadLetterStore
from faststream_outbox._values.dead_letter import DeadLetter, Selection
from faststream_outbox.broker.publishing import AnySession
from faststream_outbox.config import check_options, require_count
from faststream_outbox.exceptions import ConfigError

DEFAULT_LIMIT = 1000
MAX_LIMIT = 1_000_000
"""More in one transaction would hold its locks for too long; call again."""


class DeadLetterOptions(TypedDict, total=False):
    """Which dead letters are meant: those that agree with all that is given. None of them: all."""

    queue: str | None
    """Of this queue. A forwarder with ``tee=True`` has its copies in one of its own, as in ``orders=>redis:orders``."""

    key: str | None
    """Of this key."""

    reason: str | None
    """That failed for this reason, as in ``retries_exhausted`` or ``too_large``."""

    failed_after: datetime | None
    """That failed at this time or later; timezone-aware."""

    failed_before: datetime | None
    """That failed before this time; timezone-aware."""


class DeadLetters:
    """Dead letters of handlers and forwarders alike, parked or in the dead-letter table.

    Each call works on at most ``limit`` of them, the oldest first (``replay`` takes those that hold their key before
    others, and both changes take parked ones before moved ones): in the caller's transaction if a session is given,
    or else in one of its own.

    Example::

        for letter in await broker.dead_letters.list(queue="orders"):
            print(letter.row.id, letter.reason, letter.exception)
        await broker.dead_letters.replay(queue="orders", reason="retries_exhausted")
    """

    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store

    async def list(
        self,
        *,
        session: AnySession | None = None,
        limit: int = 100,
        **options: Unpack[DeadLetterOptions],
    ) -> Sequence[DeadLetter]:
        """Look at dead letters, the oldest first. Takes no lock.

        Args:
            session: The transaction to read in; None: one of its own.
            limit: The most to return.
            **options: See ``DeadLetterOptions``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        return await self._store.list(session, _selection("list", options), limit=_checked(limit))

    async def count(self, *, session: AnySession | None = None, **options: Unpack[DeadLetterOptions]) -> int:
        """Count dead letters; see ``list``."""
        return await self._store.count(session, _selection("count", options))

    async def replay(
        self,
        *,
        session: AnySession | None = None,
        limit: int = DEFAULT_LIMIT,
        **options: Unpack[DeadLetterOptions],
    ) -> int:
        """Make dead letters ordinary messages again.

        They keep idempotency key, bytes, headers and the time of publishing, and start with fresh attempts. One that
        holds its key (``hold_key=True``) comes first of its key, under the id that it had; others stand behind what
        already waits, under new ids. One that a live message stands for (same queue, and same idempotency key given at
        publish or same timer id) stays a dead letter.

        Returns:
            How many were; call again while it is ``limit``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        return await self._store.replay(session, _selection("replay", options), limit=_checked(limit))

    async def discard(
        self,
        *,
        session: AnySession | None = None,
        limit: int = DEFAULT_LIMIT,
        **options: Unpack[DeadLetterOptions],
    ) -> int:
        """Delete dead letters for good. What one of them held back (``hold_key=True``) goes on.

        Returns:
            How many were; call again while it is ``limit``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        return await self._store.discard(session, _selection("discard", options), limit=_checked(limit))


def _selection(method: str, options: DeadLetterOptions) -> Selection:
    check_options(method, options, DeadLetterOptions)
    for name in ("failed_after", "failed_before"):
        moment = options.get(name)
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            msg = f"{name}: must be a timezone-aware datetime, got {moment!r}"
            raise ConfigError(msg)
    return Selection(**options)


def _checked(limit: int) -> int:
    return require_count("limit", limit, at_most=MAX_LIMIT)
