"""``broker.dead_letters``: look at rows that failed for good, send them again, or let them go."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from typing_extensions import TypedDict, Unpack

from faststream_outbox._store.postgres.sessions import AnySession
from faststream_outbox._store.protocol import DeadLetterStore
from faststream_outbox._values.control import Note
from faststream_outbox._values.dead_letter import DeadLetter, Selection
from faststream_outbox._values.figures import DeadLetterGroups
from faststream_outbox.admin.pausing import check_words
from faststream_outbox.checks import MAX_COUNT, check_options, require_count, require_text
from faststream_outbox.exceptions import ConfigError

DEFAULT_LIMIT = 1000
MAX_LIMIT = 1_000_000
"""More in one transaction would hold its locks for too long; call again."""

MAX_ID = 2**63 - 1

MOST_IDS_IN_LOG = 100

DEFAULT_BATCH = 500
"""A transaction of so many takes a moment, and holds up nobody."""


class Change(Protocol):
    """What is done with dead letters."""

    async def __call__(self, session: Any, selection: Selection, *, limit: int, note: Note | None = None) -> int:
        """Change up to ``limit`` letters, and return how many."""


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

    older_than: timedelta | None
    """That failed longer ago than this, by the database's clock."""

    exception: str | None
    """Whose exception's text contains this."""

    kind: str | None
    """Whose exception has this type, as ``groups`` shows it; empty for those without an exception."""

    ids: Sequence[int] | None
    """With one of these ids; where ids began anew, several letters may have one."""


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
        max_bytes: int = MAX_COUNT,
        **options: Unpack[DeadLetterOptions],
    ) -> Sequence[DeadLetter]:
        """Look at dead letters, the oldest first. Takes no lock.

        Args:
            session: The transaction to read in; None: one of its own.
            limit: The most to return.
            max_bytes: How much to read of each payload; ``size`` of a letter is that of the whole.
            **options: See ``DeadLetterOptions``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        max_bytes = require_count("max_bytes", max_bytes)
        return await self._store.list(session, _selection("list", options), limit=_checked(limit), max_bytes=max_bytes)

    async def now(self) -> datetime:
        """Return the time by the clock that the times of dead letters are from, for ``failed_before``."""
        return await self._store.now()

    async def count(self, *, session: AnySession | None = None, **options: Unpack[DeadLetterOptions]) -> int:
        """Count dead letters; see ``list``."""
        return await self._store.count(session, _selection("count", options))

    async def groups(
        self,
        *,
        session: AnySession | None = None,
        limit: int = 100,
        at_most: int = 100_000,
        **options: Unpack[DeadLetterOptions],
    ) -> DeadLetterGroups:
        """Return dead letters by queue, reason and type of exception, the largest groups first.

        Args:
            session: The transaction to read in; None: one of its own.
            limit: The most groups to return.
            at_most: The most dead letters to look at; ``looked_at`` of the result says whether there are more.
            **options: See ``DeadLetterOptions``.

        Raises:
            ConfigError: An option or a limit cannot be.
            InvalidSessionError: ``session`` cannot be used.

        Example::

            found = await broker.dead_letters.groups(queue="orders")
            for group in found.groups:
                print(group.count, group.reason, group.kind, group.example)
        """
        selection = _selection("groups", options)
        at_most = require_count("at_most", at_most, at_most=MAX_LIMIT)
        return await self._store.groups(session, selection, limit=_checked(limit), at_most=at_most)

    async def replay(
        self,
        *,
        session: AnySession | None = None,
        limit: int = DEFAULT_LIMIT,
        by: str | None = None,
        why: str | None = None,
        **options: Unpack[DeadLetterOptions],
    ) -> int:
        """Replay dead letters: turn them into ordinary messages again.

        They keep idempotency key, bytes, headers and the time of publishing, and start with fresh attempts. One that
        holds its key (``hold_key=True``) comes first of its key, under the id that it had; others stand behind what
        already waits, under new ids. One that a live message stands for (same queue, and same idempotency key given at
        publish or same timer id) stays a dead letter.

        Args:
            session: The transaction to do it in; None: one of its own.
            limit: The most to replay.
            by: Who does it, for the audit log, which is written where the broker has a ``control_table``. None: the
                user and the machine of this process.
            why: What for, for the audit log.
            **options: See ``DeadLetterOptions``.

        Returns:
            How many were; call again while it is ``limit``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        selection = _selection("replay", options)
        note = _note("replay", selection, by, why)
        return await self._store.replay(session, selection, limit=_checked(limit), note=note)

    async def replay_all(
        self,
        *,
        batch: int = DEFAULT_BATCH,
        by: str | None = None,
        why: str | None = None,
        **options: Unpack[DeadLetterOptions],
    ) -> AsyncIterator[int]:
        """Replay all that have failed until now, in one transaction for each batch.

        What fails again meanwhile is not among them. If the process ends in the middle, each letter is either replayed
        or still a letter, and the same call goes on with the rest. The audit log has one line, which counts what is
        done: each transaction adds to it.

        Args:
            batch: The most in one transaction.
            by: See ``replay``.
            why: See ``replay``.
            **options: See ``DeadLetterOptions``.

        Yields:
            How many were replayed so far, after each transaction.

        Raises:
            ConfigError: An option or ``batch`` cannot be.

        Example::

            async for done in broker.dead_letters.replay_all(queue="orders"):
                print(done)
        """
        selection = _selection("replay_all", options)
        async for done in self._all(self._store.replay, _note("replay", selection, by, why), batch, selection):
            yield done

    async def discard_all(
        self,
        *,
        batch: int = DEFAULT_BATCH,
        by: str | None = None,
        why: str | None = None,
        **options: Unpack[DeadLetterOptions],
    ) -> AsyncIterator[int]:
        """Delete for good all that have failed until now, in one transaction for each batch; see ``replay_all``."""
        selection = _selection("discard_all", options)
        async for done in self._all(self._store.discard, _note("discard", selection, by, why), batch, selection):
            yield done

    async def _all(self, change: Change, note: Note, batch: int, selection: Selection) -> AsyncIterator[int]:
        now = await self._store.now()
        selection = replace(selection, failed_before=min(selection.failed_before or now, now))
        done = 0
        while changed := await change(None, selection, limit=_checked(batch), note=note):
            done += changed
            yield done

    async def discard(
        self,
        *,
        session: AnySession | None = None,
        limit: int = DEFAULT_LIMIT,
        by: str | None = None,
        why: str | None = None,
        **options: Unpack[DeadLetterOptions],
    ) -> int:
        """Delete dead letters for good. What one of them held back (``hold_key=True``) goes on.

        Args:
            session: The transaction to do it in; None: one of its own.
            limit: The most to delete.
            by: See ``replay``.
            why: See ``replay``.
            **options: See ``DeadLetterOptions``.

        Returns:
            How many were; call again while it is ``limit``.

        Raises:
            ConfigError: An option or the limit cannot be.
            InvalidSessionError: ``session`` cannot be used.
        """
        selection = _selection("discard", options)
        note = _note("discard", selection, by, why)
        return await self._store.discard(session, selection, limit=_checked(limit), note=note)


def _selection(method: str, options: DeadLetterOptions) -> Selection:
    check_options(method, options, DeadLetterOptions)
    for name in ("failed_after", "failed_before"):
        moment = options.get(name)
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            msg = f"{name}: must be a timezone-aware datetime, got {moment!r}"
            raise ConfigError(msg)
    for name in ("queue", "key", "reason", "exception", "kind"):
        require_text(name, options.get(name))
    older_than: Any = options.get("older_than")
    if older_than is not None and not isinstance(older_than, timedelta):
        msg = f"older_than: must be a timedelta, got {older_than!r}"
        raise ConfigError(msg)
    ids: Any = options.get("ids")
    given: dict[str, Any] = {**options, "ids": None if ids is None else _ids(ids)}
    return Selection(**given)


def _note(action: str, selection: Selection, by: str | None, why: str | None) -> Note:
    who, why = check_words(by, why)
    given = {name: _in_log(value) for name, value in asdict(selection).items() if value is not None}
    return Note(action=action, what=given, who=who, why=why)


def _in_log(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str | timedelta):
        return str(value)
    ids = [*value]
    return ids if len(ids) <= MOST_IDS_IN_LOG else [*ids[:MOST_IDS_IN_LOG], f"and {len(ids) - MOST_IDS_IN_LOG} more"]


def _ids(values: Any) -> tuple[int, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        msg = f"ids: must be several integers, as in ids=[7], got {values!r}"
        raise ConfigError(msg)
    return tuple(map(_id, values))


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_ID:
        msg = f"ids: must be integers that PostgreSQL's bigint holds, got {value!r}"
        raise ConfigError(msg)
    return value


def _checked(limit: int) -> int:
    return require_count("limit", limit, at_most=MAX_LIMIT)
