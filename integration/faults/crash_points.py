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

from faststream_outbox._store.postgres.handing_over import PostgresHandOver
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import Unwritten

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

    def reached(here: str, hand_over: int) -> None:
        if (here, hand_over) == (point, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(taken: PostgresHandOver, this: int) -> None:
        write = taken.write

        async def watched(*outcomes: Any) -> Sequence[Unwritten]:
            reached("after send", this)
            unwritten = await write(*outcomes)
            reached("before commit", this)
            return unwritten

        taken.write = watched

    @asynccontextmanager
    async def watched(self: PostgresStore, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        nonlocal begun
        async with hand_over(self, *arguments, **options) as taken:
            if taken is None or not taken.rows:
                yield taken
                return
            # Its own number: another lane may have begun the next one by the time that this one is over.
            begun = this = begun + 1
            reached("before send", this)
            watch(taken, this)
            yield taken
        reached("after commit", this)

    PostgresStore.hand_over = watched  # type: ignore[method-assign]
