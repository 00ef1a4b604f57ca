"""How a look is divided between rows whose time has come and ready ones, so that neither kind starves."""

import random
from typing import NamedTuple


class Halves(NamedTuple):
    """The part of the rows whose time has come; the rest is for ready ones. What one does not use the other gets."""

    due_first: bool
    """Whether they have the first turn, where rows are taken in turns."""
    due_share: int


def halves(limit: int) -> Halves:
    """Halve a look for ``limit`` rows; lots are drawn for the odd one.

    To take turns instead would not do: a shard may be visited in every second look alone, and always in the same turn.
    """
    due_first = random.choice((True, False))  # noqa: S311 - nothing secret depends on it
    return Halves(due_first, (limit + due_first) // 2)
