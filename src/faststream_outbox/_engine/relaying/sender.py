"""Sends the rows of one hand-over, and says what has become of each."""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._engine.service import is_cancelled
from faststream_outbox._values.outcome import Accepted, Dropped, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.unreadable import Unreadable

Prepare: TypeAlias = Callable[[OutboxRow], Parcel | Dropped | Refused]
"""Returns what is sent of a row; never raises."""

WAVES_SECONDS = 1.0
"""How long new waves are begun in one hand-over; what is left comes with the next one."""


_headers_of = attrgetter("headers")


class Sent(NamedTuple):
    """What a hand-over has come to."""

    verdicts: Sequence[Verdict] = ()
    """In the order of the rows."""
    has_answer: bool = False
    """Whether the destination accepted or refused a row. Poison may have been found without asking it."""
    trouble: BaseException | None = None
    """Why it did not take others."""
    partly: BaseException | None = None
    """Why a part of it did not take others, while the rest of it may."""
    are_deferred: bool = False
    """Whether rows of such a part are put out of the way of the others."""


class Sender:
    """The rows of a lane on their way to its destination.

    A destination keeps the order of the keys that rows are sent with, and goes on with a key after poison. Where rows
    of one key are prepared for different keys or addresses, or none may follow a dead letter, they are sent in waves:
    the next wave has the rows behind those that were accepted.

    Args:
        destination: Where rows go.
        seconds: For one wave; then it is given up.
        prepare: Returns what is sent of each row; None sends rows as they are.
        singly: Whether a row is sent only when the one before it of its key is accepted.
    """

    def __init__(
        self, destination: Destination, seconds: float, prepare: Prepare | None = None, *, singly: bool = False
    ) -> None:
        self._destination = destination
        self._seconds = seconds
        self._prepare = prepare
        self._singly = singly

    async def send(self, rows: Sequence[OutboxRow]) -> Sent:
        """Send rows in order; failures of the destination are verdicts of rows, never exceptions."""
        if not rows:
            return Sent()
        if self._prepare is None and not self._singly and Unreadable not in map(type, map(_headers_of, rows)):
            verdicts = await self._wave([Parcel(row) for row in rows])
            return Sent(verdicts, *_reading(verdicts))
        return await self._in_waves(rows, self._prepare or Parcel)

    async def _in_waves(self, rows: Sequence[OutboxRow], prepare: Prepare) -> Sent:
        by_row: dict[int, Verdict] = {}
        pending = self._prepared(rows, prepare, by_row)
        has_answer, trouble, partly = False, None, None
        began = time.monotonic()
        while pending and trouble is None and time.monotonic() - began < WAVES_SECONDS:
            wave, pending = _part(pending, singly=self._singly)
            verdicts = await self._wave([parcel for _, parcel in wave])
            by_row.update((row.id, verdict) for (row, _), verdict in zip(wave, verdicts, strict=True))
            # Behind poison too: whether that holds its key back is seen when it is settled.
            held = {row.key for row, _ in wave if not isinstance(by_row[row.id], Accepted)}
            pending = [(row, parcel) for row, parcel in pending if row.key not in held]
            answered, trouble, of_part = _reading(verdicts)
            has_answer, partly = has_answer or answered, partly or of_part
        return Sent([by_row.get(row.id, Unsent()) for row in rows], has_answer, trouble, partly)

    def _prepared(self, rows: Sequence[OutboxRow], prepare: Prepare, by_row: dict[int, Verdict]) -> "_Pending":
        """Prepare rows; those behind one that cannot be prepared wait for it, as the others of its key do."""
        pending: _Pending = []
        held: set[str] = set()
        for row in rows:
            if row.key is not None and row.key in held:
                continue
            match _unreadable(row) or prepare(row):
                case Parcel() as parcel:
                    pending.append((row, parcel))
                case verdict:
                    by_row[row.id] = verdict
                    # As in a wave, whether poison holds its key back is seen when it is settled.
                    holds = isinstance(verdict, Refused) or (self._singly and isinstance(verdict, Poison))
                    if holds and row.key is not None:
                        held.add(row.key)
        return pending

    async def _wave(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        try:
            async with asyncio.timeout(self._seconds):
                verdicts = await self._destination.send(parcels)
            if len(verdicts) != len(parcels):
                msg = f"{len(verdicts)} verdicts on {len(parcels)} rows"
                raise ValueError(msg)  # noqa: TRY301 - it ends like every other failure of the destination
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            # The outcome is unknown: the rows stay and are sent again with the same keys.
            return [Unsent(error)] * len(parcels)
        return verdicts


_Pending: TypeAlias = list[tuple[OutboxRow, Parcel]]
"""Rows as they were published, and as they are sent."""


def _unreadable(row: OutboxRow) -> Poison | None:
    """Return why neither a transform nor a destination is asked about a row."""
    return None if row.problem is None else Poison(Reason.INVALID, ValueError(row.problem))


def _part(pending: _Pending, *, singly: bool) -> tuple[_Pending, _Pending]:
    """Take out what can be sent at once: for each key, the first rows that go the same way."""
    wave: _Pending = []
    later: _Pending = []
    ways: dict[str, Hashable] = {}
    for row, parcel in pending:
        # A row that has lost its key, or never had one, has no order to keep.
        if row.key is not None and (singly or parcel.row.key is not None):
            way: Hashable = row.id if singly else (parcel.row.key, parcel.address)
            if ways.setdefault(row.key, way) != way:
                ways[row.key] = None
                later.append((row, parcel))
                continue
        wave.append((row, parcel))
    return wave, later


def _reading(verdicts: Sequence[Verdict]) -> tuple[bool, BaseException | None, BaseException | None]:
    """Return whether the destination has answered, and what is wrong with it, and with a part of it."""
    unsent = [verdict for verdict in verdicts if isinstance(verdict, Unsent) and verdict.exception is not None]
    trouble = next((verdict.exception for verdict in unsent if verdict.part is None), None)
    partly = next((verdict.exception for verdict in unsent if verdict.part is not None), None)
    return any(isinstance(verdict, Accepted | Refused) for verdict in verdicts), trouble, partly
