"""What is paused for all processes, and how this one hears of it."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.controls import ControlStore
from faststream_outbox._values.control import PausedKey, StoredPause

POLL_SECONDS = 1.5
"""Between two reads where no notification is heard: the polling interval of consumers."""

HEARD_SECONDS = 10.0
"""Between two reads where notifications are heard: one may be lost."""


class Pauses:
    """The pauses that are stored, as this process has read them last.

    Args:
        is_known: False: they have still to be read, and until then everything counts as paused.
    """

    def __init__(self, *, is_known: bool = True) -> None:
        self.is_known = is_known
        self.all: Sequence[StoredPause] = ()
        self.keys: Sequence[PausedKey] = ()
        """Keys of which no row is to be taken."""
        self._forwarders: frozenset[str] = frozenset()
        self._queues: frozenset[str] = frozenset()
        self._watchers: list[Callable[[], None]] = []

    def has_forwarder(self, name: str) -> bool:
        """Return whether a forwarder may take no rows."""
        return not self.is_known or name in self._forwarders

    def has_queue(self, queue: str) -> bool:
        """Return whether no row of a queue may be taken."""
        return not self.is_known or queue in self._queues

    def of(self, queues: Sequence[str], forwarder: str | None = None) -> Sequence[StoredPause]:
        """Return the pauses that keep rows of these queues from being taken, or this forwarder from taking any."""
        return tuple(
            pause
            for pause in self.all
            if pause.scope.queue in queues
            or (pause.scope.forwarder is not None and pause.scope.forwarder == forwarder)
            or (pause.scope.queue is None and pause.scope.key is not None)
        )

    def set(self, pauses: Sequence[StoredPause]) -> None:
        """Take over what was read, and call the watchers if anything begins or ends."""
        self.all = tuple(pauses)
        scopes = [pause.scope for pause in pauses]
        before = (self.is_known, self._forwarders, self._queues, self.keys)
        self.is_known = True
        self._forwarders = frozenset(scope.forwarder for scope in scopes if scope.forwarder is not None)
        self._queues = frozenset(scope.queue for scope in scopes if scope.queue is not None and scope.key is None)
        keys = {PausedKey(scope.queue, scope.key) for scope in scopes if scope.key is not None}
        self.keys = sorted(keys, key=lambda paused: (paused.key, paused.queue or ""))
        if before != (True, self._forwarders, self._queues, self.keys):
            for watcher in [*self._watchers]:
                watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` when anything begins or ends."""
        self._watchers.append(watcher)

    def forget(self, watcher: Callable[[], None]) -> None:
        """Call it no more."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)


class PauseReader(Service):
    """Reads the pauses at the start, when somebody has changed them, when one of them ends, and now and then.

    Args:
        store: Where they are.
        pauses: What is told.
        hears: Whether notifications are heard now.
        health: Of the control table.
        log: Gets a line when the table is not there.
    """

    def __init__(
        self, store: ControlStore, pauses: Pauses, *, hears: Callable[[], bool], health: Health, log: Log
    ) -> None:
        super().__init__("outbox-pauses", health)
        self._store = store
        self._pauses = pauses
        self._hears = hears
        self._log = log
        self._bell = Wakeup()
        self._is_missing = False

    def ring(self) -> None:
        """Read them now: somebody has changed them, or what is heard has changed."""
        self._bell.ring()

    def interrupt(self) -> None:
        self._bell.ring()

    async def run_once(self) -> None:
        # What is changed during the read is read again.
        self._bell.clear()
        async with asyncio.timeout(DATABASE_SECONDS):
            found = await self._store.pauses()
        self.health.recovered(self.name)
        if found is None and not self._is_missing:
            text = "there is no such control table: nothing can be paused for all processes until it is created"
            self._log(logging.WARNING, text, None)
        self._is_missing = found is None
        self._pauses.set(found or ())
        if self.is_stopping:
            return
        ends = min((pause.seconds_left for pause in found or () if pause.seconds_left is not None), default=math.inf)
        interval = HEARD_SECONDS if self._hears() else POLL_SECONDS
        with self.resting():
            await self._bell.wait(min(interval, max(ends, 0.0)))
