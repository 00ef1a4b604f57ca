"""What is seen of queues and rows by people who look at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from faststream_outbox._values.control import StoredPause
from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox._values.row import OutboxRow


class Count(NamedTuple):
    """How many there are, or that there are at least so many."""

    rows: int
    is_whole: bool = True
    """False where the look ended at its bound: there may be more."""

    def __str__(self) -> str:
        return f"{self.rows:,}" if self.is_whole else f"{self.rows:,}+"


NONE = Count(0)


class RowState(StrEnum):
    """In which state a row of a queue is; each row is in just one."""

    READY = "ready"
    """It can be taken, unless an earlier row of its key waits."""
    DUE = "due"
    """Its time has come: a timer, a retry, or what a consumer has given back."""
    TIMER = "timer"
    """It was published for a later time, and is no backlog yet."""
    RETRY = "retry"
    """It failed, or its part of the destination is down, and it waits for its next attempt."""
    LEASED = "leased"
    """A handler has it."""
    PARKED = "parked"
    """It is a dead letter in the outbox table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """How many rows a queue has in which state, and for how long the first of them could have been taken."""

    queue: str
    ready: Count = NONE
    due: Count = NONE
    timers: Count = NONE
    retries: Count = NONE
    leased: Count = NONE
    leases_run_out: int = 0
    """Of the leased ones, those whose lease ran out: a living process gives them back within seconds."""
    parked: Count = NONE
    held: int = 0
    """Of the parked ones, those that hold back the later rows of their key (``hold_key=True``)."""
    moved: Count = NONE
    """Dead letters in the dead-letter table."""
    oldest_seconds: float | None = None
    """For how long the takeable row that waits longest could have been taken; None where there is none."""
    next_due_seconds: float | None = None
    """Until the first timer or retry is due; None where none waits."""
    pauses: Sequence[StoredPause] = ()
    """Pauses for all processes: of the queue, of keys of it, and of the forwarder whose copies these are."""

    @property
    def backlog(self) -> Count:
        """Rows that could be taken now; timers and retries that wait are not among them."""
        return _sum(self.ready, self.due)

    @property
    def is_paused(self) -> bool:
        """Whether all of it is paused, and not only some of its keys."""
        return any(pause.scope.key is None for pause in self.pauses)

    @property
    def dead(self) -> Count:
        """Dead letters, parked or moved."""
        return _sum(self.parked, self.moved)

    @property
    def forwarder(self) -> str | None:
        """The forwarder whose copies these are (``tee=True``); None for a queue that is published to."""
        return self.queue.partition(SEPARATOR)[2] or None


def _sum(*counts: Count) -> Count:
    return Count(sum(count.rows for count in counts), all(count.is_whole for count in counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRow:
    """A row as it was seen, without a lock: it may be another a moment later."""

    row: OutboxRow
    """Its payload is cut off at the number of bytes that was asked for."""
    state: RowState
    size: int
    """Bytes of the whole payload."""
    next_attempt_at: datetime | None
    """When it is due, or when its lease ends; None where it is ready."""
    exception: str | None
    """What its last attempt raised, where that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Dead letters of one queue that failed for the same reason with the same kind of exception."""

    queue: str
    reason: str
    kind: str | None
    """The exception's type, which is what stands before the first colon of its text; None where none is kept."""
    count: int
    held: int
    """Those that hold back the later rows of their key."""
    first_failed_at: datetime
    last_failed_at: datetime
    example: str | None
    """The text of one of these exceptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroups:
    """Groups of dead letters, the largest first."""

    groups: Sequence[DeadLetterGroup]
    looked_at: Count
    """How many letters were grouped: not whole where there are more."""
