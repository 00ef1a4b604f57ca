"""Finds out when the queues of a database's forwarders have nothing left, and what that waits for."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from faststream_outbox.exceptions import ConfigError
from faststream_outbox.relay.databases import RelayedDatabase

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Between two looks whether all queues are empty."""

MOST_COUNTED = 1000
"""Rows of each shard that are counted to say how many are left."""
MOST_QUEUES = 1000
"""That are looked at with one statement."""


@dataclass(slots=True)
class Left:
    """What a look has found, in words.

    Attributes:
        lines: Queues that have rows left, or why nobody knows; empty if nothing is left.
        hindrances: What does not pass by itself: pauses, dead letters that hold their keys, an error.
    """

    lines: list[str] = field(default_factory=list)
    hindrances: list[str] = field(default_factory=list)


class Drain:
    """Waits until a database has nothing left for its forwarders.

    It reads what the role of consumers may read: the outbox table, and the control table if there is one.

    Args:
        database: The database; its forwarders are started by others.
        log: Where it is said what it waits for.
    """

    def __init__(self, database: RelayedDatabase, log: logging.Logger) -> None:
        self._database = database
        self._log = log

    async def wait(self) -> None:
        """Return when no queue has a row that is ready, due, or to be tried again.

        What it waits for and does not pass by itself is said in the log, each time that it is something else.
        """
        pause = SHORTEST_PAUSE
        said: list[str] = []
        while (left := await self.look()).lines:
            if left.hindrances != said:
                said = left.hindrances
                for text in said:
                    self._log.warning("what is left waits: %s", text)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def look(self) -> Left:
        """Return what is left now."""
        name = self._database.name
        try:
            return await self._look(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows that it is empty
            text = f"{name}: {self._database.onlooker.explain(error).text}"
            return Left([text], [text])

    async def _look(self, name: str) -> Left:
        wanted = {queue for forwarder in self._database.broker.forwarders for queue in forwarder.taken_queues}
        left = Left()
        behind = ""
        while True:
            page = await self._database.onlooker.queues(limit=MOST_QUEUES, at_most=MOST_COUNTED, behind=behind)
            for figures in page:
                if figures.queue not in wanted or not (figures.backlog.rows or figures.retries.rows):
                    continue
                left.lines.append(
                    f"{name}: {figures.queue!r} has {figures.backlog} rows to be sent, and "
                    f"{figures.retries} to be tried again"
                )
                left.hindrances += [f"{name}: {figures.queue!r}: paused: {pause}" for pause in figures.pauses]
                if figures.held:
                    left.hindrances.append(f"{name}: {figures.queue!r}: dead letters hold back the rows of their keys")
            if len(page) < MOST_QUEUES:
                break
            behind = page[-1].queue
        if left.lines and self._database.settings.control_table is not None:
            names = {forwarder.name for forwarder in self._database.broker.forwarders}
            # The file may name a table that is not made yet: then nothing is paused.
            with suppress(ConfigError):
                left.hindrances += [
                    f"{name}: paused: {pause}"
                    for pause in await self._database.onlooker.pauses()
                    if pause.scope.forwarder in names
                ]
        return left
