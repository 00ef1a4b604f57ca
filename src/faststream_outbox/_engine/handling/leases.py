"""The leases that this process holds."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from faststream_outbox._engine.token import Token
from faststream_outbox._values.row import OutboxRow, identity

RENEW_AFTER = 1 / 3
"""Share of a lease after which it is renewed: two renewals may fail before it is lost."""


@dataclass(slots=True)
class Lease:
    """A claimed row, and until when nothing needs to be done about it."""

    row: OutboxRow
    seconds: float
    renew_at: float


class Leases:
    """Rows from their claim until their outcome is written, and the token under which this process claims them."""

    def __init__(self, token: Token | None = None) -> None:
        self.token = token or Token()
        """Under which they are held."""
        # By delivery too: a row whose lease was lost can be claimed again by the process that still works on it.
        self._held: dict[tuple[int, int], Lease] = {}
        self._held_at = -math.inf
        """When a row was claimed or renewed last."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, row: OutboxRow) -> bool:
        return identity(row) in self._held

    @property
    def ids(self) -> list[int]:
        """The ids of all rows that are held."""
        return [row_id for row_id, _ in self._held]

    def hold(self, rows: Iterable[OutboxRow], seconds: float) -> None:
        """Begin to look after rows that were just claimed for ``seconds``."""
        now = time.monotonic()
        for row in rows:
            self._held[identity(row)] = Lease(row, seconds, now + seconds * RENEW_AFTER)
            self._held_at = now

    def let_go(self, row: OutboxRow) -> None:
        self._held.pop(identity(row), None)

    def slim(self, row: OutboxRow) -> OutboxRow:
        """Keep of a row only what its lease needs, without its message, and return that."""
        slim = row._replace(payload=b"", headers={})
        if (lease := self._held.get(identity(row))) is not None:
            lease.row = slim
        return slim

    def are_over(self, seconds: float) -> bool:
        """Return whether nothing is held, and nothing was claimed for so long."""
        return not self._held and time.monotonic() - self._held_at > seconds

    def to_renew(self) -> dict[float, list[OutboxRow]]:
        """Return the rows whose leases are to be renewed now, by the length of their lease."""
        now = time.monotonic()
        rows: defaultdict[float, list[OutboxRow]] = defaultdict(list)
        for lease in self._held.values():
            if lease.renew_at <= now:
                rows[lease.seconds].append(lease.row)
        return rows
