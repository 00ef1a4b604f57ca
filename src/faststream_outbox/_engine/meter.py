"""What the loops tell those who measure them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from faststream_outbox._values.outcome import Outcome, Settlement, Unwritten, Verdict
from faststream_outbox._values.row import OutboxRow


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """A hand-over that is committed."""

    forwarder: str
    """Its name."""
    address: str
    """Kind and address of its destination, as in ``kafka:orders.v1``."""
    rows: Sequence[OutboxRow]
    """All that were taken."""
    verdicts: Sequence[Verdict]
    """Those that became final with the commit, in no order."""
    settlements: Sequence[Settlement]
    """The outcomes that became final."""
    taking_seconds: float
    """From its begin until the rows were locked and read."""
    sending_seconds: float
    """Until the destination has answered."""
    seconds: float
    """All of it, with the commit."""


class Meter(Protocol):
    """Hears what happens to rows, when it is final.

    Called in the event loop, between two rows: it must neither raise nor wait, and take microseconds.
    """

    def published(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        """Note that rows were written in a caller's transaction, which may still be rolled back.

        Live duplicates were left out. Copies for forwarders are not counted.
        """

    def claimed(self, consumer: str, rows: Sequence[OutboxRow], seconds: float) -> None:
        """Note one claim, which may have found no rows."""

    def handled(self, row: OutboxRow, outcome: Outcome, seconds: float) -> None:
        """Note that a handler has ended; its outcome is not written yet."""

    def settled(self, settlements: Sequence[Settlement], unwritten: Sequence[Unwritten], seconds: float) -> None:
        """Note one write of handlers' outcomes; ``unwritten`` are those that the database refuses."""

    def handed_over(self, hand_over: HandedOver) -> None:
        """Note one hand-over that had rows."""

    def leases_lost(self, rows: Sequence[OutboxRow]) -> None:
        """Note that leases of this process were lost to others while handlers had the rows."""

    def taken_over(self, queues: Collection[str]) -> None:
        """Note that this process has given back leases that ran out, or whose holder is gone, in these queues."""


class NoMeter:
    """Measures nothing, in the time of an empty call."""

    def published(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        """Note nothing."""

    def claimed(self, consumer: str, rows: Sequence[OutboxRow], seconds: float) -> None:
        """Note nothing."""

    def handled(self, row: OutboxRow, outcome: Outcome, seconds: float) -> None:
        """Note nothing."""

    def settled(self, settlements: Sequence[Settlement], unwritten: Sequence[Unwritten], seconds: float) -> None:
        """Note nothing."""

    def handed_over(self, hand_over: HandedOver) -> None:
        """Note nothing."""

    def leases_lost(self, rows: Sequence[OutboxRow]) -> None:
        """Note nothing."""

    def taken_over(self, queues: Collection[str]) -> None:
        """Note nothing."""


NO_METER: Meter = NoMeter()
