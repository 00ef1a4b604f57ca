"""Named points of a hand-over at which a relay's process ends as by `kill -9`.

    crash_at("after send", 3)    # in the process that shall die, before its broker starts

All four lie around the store's `hand_over`, the one door through which a lane takes rows and settles them. A relay
under test calls this itself; nothing in the package knows of it.
"""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from faststream_outbox._store.postgres.store import PostgresStore

CRASH_POINTS = ("before send", "after send", "before commit", "after commit")


def crash_at(point: str, number: int) -> None:
    """Kill this process at a point of its `number`-th hand-over with rows.

    Args:
        point: "before send": rows are locked. "after send": the destination has answered, nothing is written.
            "before commit": the outcomes are written. "after commit": it is over, and nobody has been told.
        number: counts from 1.
    """
    assert point in CRASH_POINTS
    hand_over = PostgresStore.hand_over
    begun = 0

    def reached(here: str) -> None:
        if here == point and begun == number:
            os.kill(os.getpid(), signal.SIGKILL)

    class Watched:
        def __init__(self, taken: Any) -> None:
            self.place, self.rows, self._taken = taken.place, taken.rows, taken

        async def settle(self, settlements: Sequence[Any]) -> None:
            reached("after send")
            await self._taken.settle(settlements)
            reached("before commit")

    @asynccontextmanager
    async def watched(self: PostgresStore, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal begun
        async with hand_over(self, *arguments, **options) as taken:
            has_rows = taken is not None and bool(taken.rows)
            if has_rows:
                begun += 1
                reached("before send")
            yield Watched(taken) if has_rows else taken
        if has_rows:
            reached("after commit")

    PostgresStore.hand_over = watched  # type: ignore[method-assign]
