"""Waits until the rows of queues are done with."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from faststream_outbox._store.protocol import Onlooker
from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.figures import QueueFigures

MOST_QUEUES = 10_000
AT_MOST = 100_000
"""So many rows are more than a test has; with more, the wait goes on."""

SHORTEST_PAUSE = 0.01
LONGEST_PAUSE = 0.25


async def wait_until_drained(
    onlooker: Onlooker,
    queue: str | None,
    *,
    seconds: float,
    meanwhile: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Return when no row is left that is ready, due, leased or to be tried again; see ``OutboxBroker``.

    Args:
        onlooker: Counts rows.
        queue: Its name; None: all of them.
        seconds: To wait.
        meanwhile: Called between two looks.

    Raises:
        TimeoutError: Names what is left.
    """
    left: Sequence[QueueFigures] = ()
    pause = SHORTEST_PAUSE
    try:
        async with asyncio.timeout(seconds):
            while left := await _left(onlooker, queue):
                if meanwhile is not None:
                    await meanwhile()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
    except TimeoutError:
        words = ", ".join(map(_in_words, left)) or "the database did not answer"
        msg = f"not drained within {seconds:g} s: {words}"
        raise TimeoutError(msg) from None


async def _left(onlooker: Onlooker, queue: str | None) -> list[QueueFigures]:
    found = await onlooker.queues(limit=MOST_QUEUES, at_most=AT_MOST)
    # Copies of a forwarder are rows of the queue that was published to.
    return [each for each in found if queue in {None, each.queue, origin_of(each.queue)} and not _is_drained(each)]


def _is_drained(figures: QueueFigures) -> bool:
    counts = (figures.ready, figures.due, figures.retries, figures.leased)
    return all(count.rows == 0 and count.is_whole for count in counts)


def _in_words(figures: QueueFigures) -> str:
    counts = {
        "ready": figures.ready,
        "due": figures.due,
        "to be tried again": figures.retries,
        "with handlers": figures.leased,
    }
    return f"{figures.queue!r} has " + " and ".join(f"{each} {name}" for name, each in counts.items() if each.rows)
