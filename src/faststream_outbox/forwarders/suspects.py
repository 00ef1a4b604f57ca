"""Finds the row that makes a server close the connection."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from faststream_outbox._values.outcome import Poison, Reason, Refused
from faststream_outbox._values.parcel import Parcel

ALONE_AFTER = 2
POISON_AFTER = 3
MOST_SUSPECTS = 10_000
"""More than any process has in flight. Rows that others have carried meanwhile are never cleared here."""


class ConnectionBrokenError(ConnectionError):
    """The connection ended while the row was in flight: by chance, or over one of those in flight."""


class OneOfThemError(Exception):
    """The server does not take one of the rows in flight, and does not say which one.

    Attributes:
        verdict: On the one that it is.
    """

    def __init__(self, verdict: Poison | Refused) -> None:
        super().__init__(str(verdict.exception))
        self.verdict = verdict


class Parted(NamedTuple):
    """The parcels of a hand-over, parted by suspicion."""

    together: list[Parcel]
    alone: list[Parcel]
    """Suspects, each to be sent with nothing beside it."""
    waiting: list[Parcel]
    """Later rows of a suspect's key; and rows whose verdict depends on whether the server is there."""


class _Suspicion(NamedTuple):
    breaks: int
    error: BaseException
    unconfirmed: int
    """How many of the breaks may still turn out to be the server's own."""


class Suspects:
    """Counts for each row how many connections broke while it was in flight; a forwarder's lanes share it.

    After the second time the row is sent alone; after the third it is poison. A break counts only when the server
    turns out to be there: if it cannot be reached at the first attempt, it has broken the connection itself.
    """

    def __init__(self) -> None:
        self._suspicions: dict[int, _Suspicion] = {}

    def suspect(self, errors: Mapping[int, BaseException]) -> None:
        """Note that a connection broke with these rows in flight, by id, and how: to be confirmed, or withdrawn."""
        self._make_room(len(errors))
        for row_id, error in errors.items():
            breaks, _, unconfirmed = self._suspicions.get(row_id, _Suspicion(0, error, 0))
            self._suspicions[row_id] = _Suspicion(breaks + 1, error, unconfirmed + 1)

    def suspect_at_once(self, errors: Mapping[int, BaseException]) -> None:
        """Note that one of these rows will never be taken, beyond doubt."""
        self._make_room(len(errors))
        for row_id, error in errors.items():
            breaks, _, unconfirmed = self._suspicions.get(row_id, _Suspicion(0, error, 0))
            self._suspicions[row_id] = _Suspicion(max(breaks + 1, ALONE_AFTER), error, unconfirmed)

    def confirm(self, row_ids: Collection[int]) -> None:
        """Count the break against its rows: the server is there, so only the connection broke."""
        for row_id in row_ids:
            suspicion = self._suspicions.get(row_id)
            if suspicion is not None and suspicion.unconfirmed:
                self._suspicions[row_id] = suspicion._replace(unconfirmed=suspicion.unconfirmed - 1)

    def withdraw(self) -> None:
        """Take back all that is not confirmed yet: the server is away, so no connection has broken over a row."""
        for row_id, suspicion in [*self._suspicions.items()]:
            if suspicion.unconfirmed:
                self._suspicions[row_id] = suspicion._replace(
                    breaks=suspicion.breaks - suspicion.unconfirmed, unconfirmed=0
                )

    def _make_room(self, count: int) -> None:
        if len(self._suspicions) + count > MOST_SUSPECTS:
            self._suspicions.clear()

    def clear(self, row_ids: Iterable[int]) -> None:
        """Forget rows that have their answer."""
        if self._suspicions:
            for row_id in row_ids:
                self._suspicions.pop(row_id, None)

    def part(self, parcels: Sequence[Parcel]) -> Parted:
        """Part parcels, in their order: those that may share a connection, and those that may not."""
        if not self._suspicions:
            return Parted([*parcels], [], [])
        parted = Parted([], [], [])
        held_keys: set[str] = set()
        for parcel in parcels:
            key = parcel.row.key
            part = parted.waiting if key in held_keys else self._part_of(parcel, parted)
            part.append(parcel)
            if part is not parted.together and key is not None:
                held_keys.add(key)
        return parted

    def _part_of(self, parcel: Parcel, parted: Parted) -> list[Parcel]:
        suspicion = self._suspicions.get(parcel.row.id)
        if suspicion is None or suspicion.breaks < ALONE_AFTER:
            return parted.together
        is_open = suspicion.breaks >= POISON_AFTER and suspicion.unconfirmed > 0
        return parted.waiting if is_open else parted.alone

    def verdict_on(self, row_id: int) -> Poison | None:
        """Return the verdict on a row that has broken too many connections, the last one alone."""
        suspicion = self._suspicions.get(row_id)
        if suspicion is None or suspicion.breaks < POISON_AFTER or suspicion.unconfirmed > 0:
            return None
        return Poison(Reason.INVALID, suspicion.error)
