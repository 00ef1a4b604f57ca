"""Finds the row that makes a server close the connection."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from faststream_outbox._values.outcome import Poison, Reason, Refused
from faststream_outbox._values.parcel import Parcel

ALONE_AFTER = 2
POISON_AFTER = 3
MOST_SUSPECTS = 10_000
"""More than any process has in flight. Rows that others have carried meanwhile are never acquitted here."""


class ConnectionBrokenError(ConnectionError):
    """The connection ended while the row was in flight: by chance, or over one of those in flight."""


class OneOfThemError(Exception):
    """The server does not take one of the rows in flight, and does not say which one.

    Attributes:
        verdict: What the guilty one deserves.
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


class _Charge(NamedTuple):
    breaks: int
    error: BaseException
    unproven: int
    """How many of the breaks may still turn out to be the server's own."""


class Suspects:
    """Counts for each row how many connections broke while it was in flight; a forwarder's lanes share it.

    After the second time the row is sent alone; after the third it is poison. A break counts only when the server
    turns out to be there: if it cannot be reached at the first attempt, it has broken the connection itself.
    """

    def __init__(self) -> None:
        self._charges: dict[int, _Charge] = {}

    def accuse(self, errors: Mapping[int, BaseException]) -> None:
        """Note that a connection broke with these rows in flight, by id, and how: to be proven, or forgiven."""
        self._make_room(len(errors))
        for row_id, error in errors.items():
            breaks, _, unproven = self._charges.get(row_id, _Charge(0, error, 0))
            self._charges[row_id] = _Charge(breaks + 1, error, unproven + 1)

    def accuse_for_certain(self, errors: Mapping[int, BaseException]) -> None:
        """Note that one of these rows will never be taken, beyond doubt."""
        self._make_room(len(errors))
        for row_id, error in errors.items():
            breaks, _, unproven = self._charges.get(row_id, _Charge(0, error, 0))
            self._charges[row_id] = _Charge(max(breaks + 1, ALONE_AFTER), error, unproven)

    def prove(self, row_ids: Collection[int]) -> None:
        """Count the break against its rows: the server is there, so only the connection broke."""
        for row_id in row_ids:
            charge = self._charges.get(row_id)
            if charge is not None and charge.unproven:
                self._charges[row_id] = charge._replace(unproven=charge.unproven - 1)

    def forgive(self) -> None:
        """Take back all that is not proven yet: the server is away, so no connection has broken over a row."""
        for row_id, charge in [*self._charges.items()]:
            if charge.unproven:
                self._charges[row_id] = charge._replace(breaks=charge.breaks - charge.unproven, unproven=0)

    def _make_room(self, count: int) -> None:
        if len(self._charges) + count > MOST_SUSPECTS:
            self._charges.clear()

    def acquit(self, row_ids: Iterable[int]) -> None:
        """Forget rows that have their answer."""
        if self._charges:
            for row_id in row_ids:
                self._charges.pop(row_id, None)

    def part(self, parcels: Sequence[Parcel]) -> Parted:
        """Part parcels, in their order: those that may share a connection, and those that may not."""
        if not self._charges:
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
        charge = self._charges.get(parcel.row.id)
        if charge is None or charge.breaks < ALONE_AFTER:
            return parted.together
        is_open = charge.breaks >= POISON_AFTER and charge.unproven > 0
        return parted.waiting if is_open else parted.alone

    def sentence(self, row_id: int) -> Poison | None:
        """Return the verdict on a row that has broken too many connections, the last one alone."""
        charge = self._charges.get(row_id)
        if charge is None or charge.breaks < POISON_AFTER or charge.unproven > 0:
            return None
        return Poison(Reason.INVALID, charge.error)
