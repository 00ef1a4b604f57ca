"""Finds the row that makes RabbitMQ close the connection."""

from collections.abc import Collection
from typing import NamedTuple

from faststream_outbox._values.outcome import Poison, Reason
from faststream_outbox._values.row import OutboxRow

ALONE_AFTER = 2
POISON_AFTER = 3
MOST_SUSPECTS = 10_000
"""More than any process has in flight. Rows that others have carried meanwhile are never acquitted here."""


class _Charge(NamedTuple):
    breaks: int
    error: BaseException


class Suspects:
    """Counts for each row how many connections broke while it was in flight; a forwarder's lanes share it.

    After the second time the row is sent alone; after the third it is poison.
    """

    def __init__(self) -> None:
        self._charges: dict[int, _Charge] = {}

    def accuse(self, row_ids: Collection[int], error: BaseException, *, certain: bool = False) -> None:
        """Note that a connection broke with these rows in flight; ``certain``: over one of them, beyond doubt."""
        if len(self._charges) + len(row_ids) > MOST_SUSPECTS:
            self._charges.clear()
        for row_id in row_ids:
            breaks = self._charges[row_id].breaks if row_id in self._charges else 0
            self._charges[row_id] = _Charge(max(breaks + 1, ALONE_AFTER if certain else 0), error)

    def forgive(self, row_ids: Collection[int]) -> None:
        """Take an accusation back: the server is away, so the connection did not break over a row."""
        for row_id in row_ids:
            if (charge := self._charges.get(row_id)) is not None:
                self._charges[row_id] = charge._replace(breaks=charge.breaks - 1)

    def acquit(self, row: OutboxRow) -> None:
        """Forget a row that has its answer."""
        self._charges.pop(row.id, None)

    def is_sent_alone(self, row: OutboxRow) -> bool:
        """Tell whether nothing else may be in flight beside this row."""
        charge = self._charges.get(row.id)
        return charge is not None and charge.breaks >= ALONE_AFTER

    def sentence(self, row: OutboxRow) -> Poison | None:
        """Give the verdict on a row that has broken too many connections, the last one alone."""
        charge = self._charges.get(row.id)
        if charge is None or charge.breaks < POISON_AFTER:
            return None
        return Poison(Reason.INVALID, charge.error)
