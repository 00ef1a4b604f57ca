"""Says who keeps rows from the lanes, by holding the lock of their shard for longer than a lane could."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faststream_outbox._engine.health import Health, Log, in_words
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._store.protocol import Holder, Store
from faststream_outbox._values.shard import Shard

LOOK_SECONDS = 30.0
"""How often the holders of shards that have work are looked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Guarded:
    """Shards that are watched for sessions that hold their lock for too long."""

    shards: Sequence[Shard]
    patience: float
    """Seconds that a hand-over takes at most: by then PostgreSQL has ended the one of a lane that is gone."""
    is_wanted: Callable[[], bool] = lambda: True
    """Whether this process wants their rows now."""


class Obstructions(Service):
    """Looks for sessions that hold a shard which has rows for longer than any lane does.

    Advisory locks are everybody's, and PostgreSQL knows no privilege for them: who may connect may halt a forwarder by
    them, and lanes take that for another lane at work.

    Args:
        store: Where shards are locked.
        database: Its health: while it is down, nothing is asked.
        log: Where to say it.
    """

    def __init__(self, store: Store, database: Health, log: Log) -> None:
        quiet = Health("look for who holds shards", lambda _level, text, _error: log(logging.INFO, text, None))
        super().__init__("outbox-obstructions", quiet)
        self._store = store
        self._database = database
        self._log = log
        self._guarded: dict[Guarded, None] = {}
        self._since: dict[Holder, float] = {}
        """When each holder was first found; a holder that released the lock in between counts as another."""
        self._told: set[str] = set()

    def guard(self, guarded: Guarded) -> None:
        """Look after shards too."""
        self._guarded[guarded] = None

    def forget(self, guarded: Guarded) -> None:
        """Look after shards no longer; any number of times."""
        self._guarded.pop(guarded, None)

    def of(self, guarded: Guarded) -> list[str]:
        """Return in words who holds any of these shards for too long, as it was found with the last look."""
        shards = {*guarded.shards}
        longest: dict[str, float] = {}
        for holder, since in self._since.items():
            seconds = time.monotonic() - since
            if holder.shard in shards and seconds >= guarded.patience:
                longest[holder.who] = max(seconds, longest.get(holder.who, 0.0))
        return [f"{who}, seen for {in_words(seconds)}" for who, seconds in longest.items()]

    async def run_once(self) -> None:
        await self.sleep(LOOK_SECONDS)
        wanted = [guarded for guarded in self._guarded if guarded.is_wanted()]
        if self.is_stopping or self._database.is_down or not wanted:
            return
        async with asyncio.timeout(DATABASE_SECONDS):
            shards = dict.fromkeys(shard for guarded in wanted for shard in guarded.shards)
            found = await self._store.holders(list(shards))
        self.health.recovered()
        now = time.monotonic()
        self._since = {holder: self._since.get(holder, now) for holder in found}
        told = {line for guarded in wanted for line in self._tell(guarded)}
        self._told &= told

    def _tell(self, guarded: Guarded) -> list[str]:
        """Log who is in the way now and was not before; return all who are."""
        queues = ", ".join(sorted({repr(shard.queue) for shard in guarded.shards}))
        keys = []
        for line in self.of(guarded):
            key = f"{line.partition(', seen')[0]} {queues}"
            keys.append(key)
            if key not in self._told:
                self._told.add(key)
                self._log(
                    logging.WARNING,
                    f"{line}, holds the lock of shards that have rows for the forwarder of {queues}: they stay where "
                    "they are until it lets go; SELECT pg_terminate_backend(pid) ends it",
                    None,
                )
        return keys
