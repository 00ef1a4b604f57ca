"""Sends rows in batches, one in flight: for destinations that take a batch as a whole, or not at all."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow

M = TypeVar("M")
"""A message: what a row becomes."""

B = TypeVar("B")
"""Messages packed together."""


class Answer(NamedTuple):
    """What the destination says to a batch."""

    verdicts: Sequence[Verdict]
    """One for each message, in their order."""
    is_for_one: bool = False
    """Whether the batch was refused as a whole, perhaps for one of its messages alone."""
    behind: Verdict | None = None
    """What becomes of all messages behind the batch, where it is in vain to send them now."""


class BatchSender(ABC, Generic[M, B]):
    """The next batch is sent when the one before has its answer.

    A batch that is refused for one of its messages is halved until that message stands alone. Once a row is refused,
    the later rows of its key are not sent.

    Args:
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(self, verdicts: MutableMapping[int, Verdict]) -> None:
        self._verdicts = verdicts
        self._held_keys: set[str] = set()

    async def send(self, messages: Sequence[M]) -> None:
        """Send messages until all have a verdict; what stands behind an outage stays unsent."""
        runs = [[*messages]]
        while runs:
            run = runs.pop()
            members, batch = self._pack(run)
            if run:
                runs.append(run)
            if not members:
                continue
            answer = await self._exchange(batch, members)
            if answer.is_for_one and len(members) > 1:
                middle = len(members) // 2
                runs += [members[middle:], members[:middle]]
                continue
            self._note(self._rows_of(members), answer.verdicts)
            if answer.behind is not None:
                # The last run is the next one.
                behind = [row for run in reversed(runs) for row in self._rows_of(run)]
                self._note(behind, [answer.behind] * len(behind))
                return

    @abstractmethod
    def _pack(self, run: list[M]) -> tuple[list[M], B]:
        """Take messages from the front of a run until a batch is full; return those in the batch, and the batch.

        Messages that are not to be sent are taken from the run too, and noted.
        """

    @abstractmethod
    async def _exchange(self, batch: B, members: Sequence[M]) -> Answer:
        """Send a batch, and return what is answered; failures are verdicts, never exceptions."""

    @abstractmethod
    def _rows_of(self, messages: Sequence[M]) -> Sequence[OutboxRow]:
        """Return the rows that became these messages."""

    def _is_held(self, row: OutboxRow) -> bool:
        """Return whether a row waits behind one of its key; note it then."""
        if row.key is None or row.key not in self._held_keys:
            return False
        self._verdicts[row.id] = Unsent()
        return True

    def _note(self, rows: Sequence[OutboxRow], verdicts: Sequence[Verdict]) -> None:
        if Refused in map(type, verdicts):
            verdicts = [*behind_refused(rows, verdicts, self._held_keys)]
        self._verdicts.update(zip([row.id for row in rows], verdicts, strict=True))


def behind_refused(rows: Iterable[OutboxRow], verdicts: Iterable[Verdict], held_keys: set[str]) -> Iterator[Verdict]:
    """Yield the verdicts on rows, in their order; of each key, the later rows only wait behind the first refused one.

    Args:
        rows: In order.
        verdicts: One for each.
        held_keys: Takes the keys of the rows that are refused.
    """
    for row, verdict in zip(rows, verdicts, strict=True):
        if row.key is None or not isinstance(verdict, Refused):
            yield verdict
        elif row.key in held_keys:
            yield Unsent()
        else:
            held_keys.add(row.key)
            yield verdict
