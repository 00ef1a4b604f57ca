"""An outbox at a glance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from faststream_outbox._values.control import StoredPause
from faststream_outbox._values.facts import ServerFacts, TableFacts
from faststream_outbox._values.figures import QueueFigures

STANDING_SECONDS = 60.0
"""A row that could have been taken for so long is not just on its way."""


class OutboxState(StrEnum):
    """How an outbox does, in one word."""

    FLOWING = "flowing"
    """No row waits for long."""
    STANDING = "standing"
    """A queue has a row that could have been taken for more than a minute, or leases that nobody gives back."""
    PAUSED = "paused"
    """Something is paused for all processes, and nothing else stands."""
    BROKEN = "broken"
    """The tables are not as they are declared, or the server takes no writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is known of the server, of the tables and of each queue."""

    server: ServerFacts
    tables: Sequence[TableFacts]
    differences: Mapping[str, Sequence[str]]
    queues: Sequence[QueueFigures]
    pauses: Sequence[StoredPause] = ()
    """What is paused for all processes."""

    @property
    def state(self) -> OutboxState:
        """How the outbox does, in one word."""
        if self.differences or not self.server.takes_writes:
            return OutboxState.BROKEN
        if any(map(is_standing, self.queues)):
            return OutboxState.STANDING
        return OutboxState.PAUSED if self.pauses else OutboxState.FLOWING


def is_standing(figures: QueueFigures) -> bool:
    """Return whether a row of the queue could have been taken long ago, or nobody gives back its leases.

    What is paused is meant to wait.
    """
    waits_long = (figures.oldest_seconds or 0.0) > STANDING_SECONDS
    return (waits_long and not figures.is_paused) or figures.leases_run_out > 0
