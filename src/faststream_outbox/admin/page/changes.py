"""Replays and discards a bounded number of dead letters, so that a request ends."""

import asyncio
import time
from contextlib import aclosing
from typing import Any, NamedTuple

from faststream_outbox._values.figures import Count
from faststream_outbox.admin.dead_letters import DeadLetterOptions, DeadLetters

MOST = 10_000
MOST_SECONDS = 20.0
"""Proxies give up on an answer after a minute or less."""

LONGEST_SECONDS = 40.0
"""A batch that waits for a lock is given up then."""

BATCH = 500


class Change(NamedTuple):
    """What was done."""

    done: int
    left: Count | None
    """How many of those that were meant are still dead letters, up to 100,000. None where the database did not answer
    any more."""


async def counted(dead_letters: DeadLetters, options: DeadLetterOptions) -> Count:
    """Return how many dead letters are meant; the look ends at 100,000."""
    return (await dead_letters.groups(limit=1, **options)).looked_at


async def change(
    dead_letters: DeadLetters, action: str, options: DeadLetterOptions, *, by: str, why: str | None, most: int = MOST
) -> Change:
    """Replay or discard up to ``most`` dead letters, in transactions of 500, for up to 20 seconds.

    Args:
        dead_letters: Where they are.
        action: ``replay`` or ``discard``.
        options: Which of them are meant.
        by: Who does it.
        why: What for.
        most: The most to change.
    """
    until = time.monotonic() + MOST_SECONDS
    work: Any = dead_letters.replay_all if action == "replay" else dead_letters.discard_all
    batch = min(BATCH, most)
    done = 0
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            async with aclosing(work(batch=batch, by=by, why=why or None, **options)) as changes:
                async for done in changes:
                    if done + batch > most or time.monotonic() > until:
                        break
            return Change(done, await counted(dead_letters, options))
    except Exception:
        if not done:
            raise
        # What was done is committed, so it is said.
        return Change(done, None)
