"""Defers rows whose part of the destination is down, so that they are in no other row's way."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from faststream_outbox._values.outcome import Deferred, Settlement, Unsent, Verdict, slot_of
from faststream_outbox._values.row import OutboxRow


class Parts(Protocol):
    """What is known of the parts of a destination that are down."""

    def seconds_to_next_try(self, part: str) -> float | None:
        """Return how long until a row tries a part again; None where the part takes rows, as far as is known."""


class NoParts:
    """A destination that is up or down as a whole."""

    def seconds_to_next_try(self, part: str) -> float | None:
        return None


class Deferrer:
    """Decides which rows are deferred, and remembers for which parts; the lanes of a forwarder share it.

    Of each key the first row is deferred, and the later ones wait behind it. Of the rows of a part in a hand-over, one
    is due when the part is tried again. All others are due when a lane sees that the part takes rows, or in a minute.

    Args:
        parts: The destination's.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        self._parts = NoParts() if parts is None else parts
        self._deferred: set[str] = set()

    @property
    def are_parts_down(self) -> bool:
        """Whether rows wait for a part."""
        return bool(self._deferred)

    def settlements(
        self, rows: Sequence[OutboxRow], verdicts: Sequence[Verdict], *, is_full: bool
    ) -> tuple[list[Settlement], Collection[str]]:
        """Return what becomes of rows whose part is down, and which parts these are.

        Args:
            rows: That a hand-over has tried to send, in order.
            verdicts: One for each.
            is_full: Whether others may stand behind them. Else they stay as they are, but for those that waited before.
        """
        tried: set[str] = set()
        settlements = []
        for row, part, seconds in self._first_of_each_key(rows, verdicts, is_full=is_full):
            # One row tries whether the part is back.
            delay = None if part in tried else seconds
            tried.add(part)
            settlements.append(Settlement(row, Deferred(slot_of(part), delay)))
        return settlements, tried

    def note(self, parts: Collection[str]) -> None:
        """Note that rows wait for these parts: they are written and committed."""
        self._deferred.update(parts)

    def _first_of_each_key(
        self, rows: Sequence[OutboxRow], verdicts: Sequence[Verdict], *, is_full: bool
    ) -> Iterator[tuple[OutboxRow, str, float]]:
        held: set[str] = set()
        for row, verdict in zip(rows, verdicts, strict=True):
            if not isinstance(verdict, Unsent) or verdict.part is None or row.key in held:
                continue
            seconds = self._parts.seconds_to_next_try(verdict.part)
            if seconds is not None and (is_full or row.last_attempt_at is not None):
                if row.key is not None:
                    held.add(row.key)
                yield row, verdict.part, seconds

    def back(self) -> Collection[str]:
        """Return the parts that take rows again, and that rows still wait for."""
        return [part for part in self._deferred if self._parts.seconds_to_next_try(part) is None]

    def forget(self, part: str) -> None:
        """Note that no row waits for a part any more."""
        self._deferred.discard(part)
