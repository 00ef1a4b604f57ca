"""Keeps outcomes that the database refuses, and decides when to try them again."""

import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Log
from faststream_outbox._values.explanation import Explanation
from faststream_outbox._values.outcome import Settlement, Unwritten
from faststream_outbox._values.row import identity

RETRY_SECONDS = (1.0, 60.0)
"""Between two attempts to write what is set aside: at first, and in the end."""

MOST_SET_ASIDE = 1000
"""Of one queue: while so many of its rows are set aside, no others of it are claimed. Something is wrong with more than
single rows then, and what a process holds must stay bounded."""

LINE_SECONDS = 10.0
"""Between two lines of the log. What is set aside meanwhile is named in the next one."""

_SHOWN = 10
"""Rows that one line of the log names."""


class SetAside:
    """Outcomes of handlers that the database refuses.

    Each harms its own row alone: others are claimed and written past it. Its row keeps its lease, so that no handler
    gets it again, and all are tried again together, at growing intervals.

    Args:
        leases: Keeps the leases of these rows.
        log: Gets a line for each row once, and one for rows that could be written in the end.
        explain: Puts an error of the database into words.
    """

    def __init__(self, leases: Leases, log: Log, explain: Callable[[BaseException], Explanation]) -> None:
        self._leases = leases
        self._log = log
        self._explain = explain
        self._kept: dict[tuple[int, int], Settlement] = {}
        self._of_queue: Counter[str] = Counter()
        self._unnamed: list[Unwritten] = []
        self._last_line = -math.inf
        self._backoff = Backoff(*RETRY_SECONDS)
        self._next_try = math.inf

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def is_due(self) -> bool:
        """Whether kept outcomes are due."""
        return bool(self._kept) and time.monotonic() >= self._next_try

    @property
    def full_queues(self) -> Collection[str]:
        """The queues of which so much is kept that no more of them should be claimed."""
        return {queue for queue, count in self._of_queue.items() if count >= MOST_SET_ASIDE}

    def seconds_to_next_try(self) -> float | None:
        """Return the seconds until kept outcomes are due; None if none is kept."""
        return max(0.0, self._next_try - time.monotonic()) if self._kept else None

    def try_now(self) -> None:
        """Mark all kept outcomes as due."""
        self._next_try = 0.0

    def begin_try(self) -> Sequence[Settlement]:
        """Return what is kept, to be tried now; rows whose leases are lost are forgotten, for others have them."""
        # Also if the attempt ends in an error, which may be of these rows: others are written before the next one.
        self._put_off()
        for settlement in list(self._kept.values()):
            if settlement.row not in self._leases:
                self._drop(settlement)
        return list(self._kept.values())

    def tried(self, settlements: Sequence[Settlement], unwritten: Sequence[Unwritten]) -> None:
        """Note what came of another attempt."""
        left = {identity(each.settlement.row) for each in unwritten}
        written = [settlement for settlement in settlements if identity(settlement.row) not in left]
        for settlement in written:
            self._drop(settlement)
        if written:
            self._log(logging.INFO, f"outcomes of rows that were set aside are written: {_names(written)}", None)

    def keep(self, unwritten: Sequence[Unwritten]) -> None:
        """Set aside what could not be written."""
        if not self._kept:
            self._backoff.reset()
            self._put_off()
        for (row, outcome), _ in unwritten:
            # The database has what is in the row; a process that waits for its owner should not.
            slim = self._leases.slim(row)
            self._kept[identity(row)] = Settlement(slim, outcome)
            self._of_queue[row.queue] += 1
        self._unnamed += unwritten

    def tell(self) -> None:
        """Name in the log what was set aside since the last line, if that is a while ago."""
        if not self._unnamed or time.monotonic() - self._last_line < LINE_SECONDS:
            return
        by_kind: defaultdict[type[BaseException], list[Unwritten]] = defaultdict(list)
        for unwritten in self._unnamed:
            by_kind[type(unwritten.error)].append(unwritten)
        self._unnamed.clear()
        self._last_line = time.monotonic()
        for several in by_kind.values():
            names = _names([each.settlement for each in several])
            self._log(
                logging.ERROR,
                f"the database refuses outcomes of these rows, which are set aside: {names}: "
                f"{self._explain(several[0].error).text}. Correct what it names (a trigger, a constraint, a "
                "permission): outcomes are tried again within a minute. Until then no other process gets these rows",
                None,
            )

    def _put_off(self) -> None:
        self._next_try = time.monotonic() + self._backoff.next()

    def _drop(self, settlement: Settlement) -> None:
        row = settlement.row
        if self._kept.pop(identity(row), None) is not None:
            self._of_queue[row.queue] -= 1
            if not self._of_queue[row.queue]:
                del self._of_queue[row.queue]


def _names(settlements: Sequence[Settlement]) -> str:
    names = ", ".join(f"{row.id} in {row.queue!r}" for row, _ in settlements[:_SHOWN])
    return f"{names} and {len(settlements) - _SHOWN} more" if len(settlements) > _SHOWN else names
