"""What is paused for all processes, and how this one hears of it."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.controls import ControlStore
from faststream_outbox._values.control import PausedKey, StoredPause

POLL_SECONDS = 1.5
"""Between two reads where no notification is heard: the polling interval of consumers."""

HEARD_SECONDS = 60.0
"""Between two reads where notifications are heard: one may be lost. Each change rings, and so does LISTEN's return."""

OVERDUE_SECONDS = 1.0
"""How long after its end a pause goes on that the table was not asked about since: the database's clock comes first."""


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

    @property
    def has_any_queue(self) -> bool:
        """Whether there is a queue of which no row may be taken."""
        return not self.is_known or bool(self._queues)

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

    A pause ends by this process's own clock if the table cannot be read when its time is over.

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
        self._ends: Sequence[tuple[float, StoredPause]] = ()
        """What was read last, and when each of them ends by the clock of this process."""
        self._overdue: asyncio.TimerHandle | None = None

    def ring(self) -> None:
        """Read them now: somebody has changed them, or what is heard has changed."""
        self._bell.ring()

    def interrupt(self) -> None:
        self._bell.ring()
        if self._overdue is not None:
            self._overdue.cancel()

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
        self._take_over(found or ())
        if self.is_stopping:
            return
        interval = HEARD_SECONDS if self._hears() else POLL_SECONDS
        with self.resting():
            await self._bell.wait(min(interval, max(self._seconds_left, 0.0)))

    @property
    def _seconds_left(self) -> float:
        return min((end for end, _ in self._ends), default=math.inf) - time.monotonic()

    def _take_over(self, found: Sequence[StoredPause]) -> None:
        now = time.monotonic()
        self._ends = [(math.inf if pause.seconds_left is None else now + pause.seconds_left, pause) for pause in found]
        self._tell()

    def _tell(self) -> None:
        self._pauses.set([pause for _, pause in self._ends])
        # A read may hang, or fail again and again: the end does not wait for one.
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        if self._seconds_left < math.inf and not self.is_stopping:
            loop = asyncio.get_running_loop()
            self._overdue = loop.call_later(self._seconds_left + OVERDUE_SECONDS, self._end_overdue)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        self._ends = [(end, pause) for end, pause in self._ends if end + OVERDUE_SECONDS > now]
        self._tell()
