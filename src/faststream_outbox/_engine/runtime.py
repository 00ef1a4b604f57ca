"""Puts the loops of one broker together and starts and stops them in order."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from weakref import WeakSet

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling.completer import Completer
from faststream_outbox._engine.handling.consumer import Consumer
from faststream_outbox._engine.handling.fetcher import Fetcher
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.renewer import Renewer
from faststream_outbox._engine.handling.rescuer import Rescuer
from faststream_outbox._engine.handling.stock import Stock
from faststream_outbox._engine.health import Health, Log, guarded
from faststream_outbox._engine.lookout import Lookout
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.pauses import PauseReader, Pauses
from faststream_outbox._engine.receiver import Receiver
from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.positions import Positions
from faststream_outbox._engine.relaying.sender import Prepare
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import CANCEL_SECONDS, DATABASE_SECONDS, Service
from faststream_outbox._engine.surveyor import Surveyor
from faststream_outbox._engine.token import Token
from faststream_outbox._engine.wakeups import TeamBell, Wakeup, Wakeups
from faststream_outbox._engine.watching.consumed import Consumed
from faststream_outbox._engine.watching.obstructions import Guarded, Obstructions
from faststream_outbox._engine.watching.reminder import MOST_COUNTED, Reminder, Watched
from faststream_outbox._engine.watching.unconsumed import QueueWatcher, UnconsumedQueue
from faststream_outbox._store.protocol import DEFAULT_BATCH_BYTES, Lag, Store
from faststream_outbox._values.outcome import Outcome, TextOf, describe
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

LOOKS_PER_LEASE = 6

QUIET_SECONDS = 20.0
"""Without a wake-up and without rows, after which the table is taken to be as the last survey has found it."""

WRITE_SECONDS = 5.0
"""How long a stop waits for the last outcomes to be written. A write takes milliseconds: if it takes longer, the
database is away, and the rows are delivered again."""

UPKEEP_SECONDS = 1.0
"""How long a stop waits for the last call of the renewer and of the rescuer. Cutting it off costs a connection, and
nothing else."""


class Runtime:
    """What all consumers and lanes of one broker share: leases, wake-ups, upkeep, and one connection for each of two.

    Args:
        store: Where rows are.
        log: Where changes of state are written.
        listen: Whether to listen for new rows; False polls only.
        meter: Told by all loops what becomes of rows.
        text_of: Returns what is kept of exceptions.
    """

    def __init__(
        self, store: Store, log: Log, *, listen: bool, meter: Meter = NO_METER, text_of: TextOf = describe
    ) -> None:
        self.store = store
        self._meter = meter
        self._text_of = text_of
        self.log = guarded(log)
        self.health = Health("outbox database", self.log, store.explain)
        self.wakeups = Wakeups()
        token = Token()
        self.leases = Leases(token)
        self._consumers_and_lanes: WeakSet[Consumer | Lane] = WeakSet()
        """Their owners start them, and let go of them when they have stopped."""
        self._workers = self._lanes = 0
        """Each may hold a connection."""
        self._loop: asyncio.AbstractEventLoop | None = None
        line = Health("outbox database, LISTEN connection", self.log, store.explain)
        writes = asyncio.Lock()
        self._reminder = Reminder(self.health)
        self._reminder.watch(Watched(health=self.health))
        # Where the database is down, the line is too.
        self._reminder.watch(Watched(health=line, is_wanted=lambda: not self.health.is_down))
        self._consumed = Consumed(lambda: self.wakeups.queues)
        self.pauses = Pauses(is_known=store.controls is None)
        self.pauses.watch(self.wakeups.wake_all)
        self._pause_reader = self._read_pauses()
        self._receiver = Receiver(
            store,
            token,
            self.wakeups,
            line,
            self.log,
            on_pauses=lambda: None if self._pause_reader is None else self._pause_reader.ring(),
            consumed=self._consumed,
            enabled=listen,
        )
        self._obstructions = Obstructions(store, self.health, self.log)
        self._queue_watcher = QueueWatcher(store, self._consumed, self.health, self.log)
        self._lookout = Lookout(store, self.health)
        self._surveyor = Surveyor(store, self._shards, self.health, self.log, is_quiet=self._is_quiet)
        self._completer = Completer(store, self.leases, self.wakeups, writes, self.health, log=self.log, meter=meter)
        self._renewer = Renewer(store, self.leases, writes, self.health, self.log, meter=meter)
        self._rescuer = Rescuer(
            store,
            self.leases,
            self.wakeups,
            self.health,
            can_judge=self._receiver.is_steady,
            has_handlers=lambda: self._workers > 0,
            meter=meter,
        )

    @property
    def hears(self) -> bool:
        """Whether a notification wakes consumers now."""
        return self._receiver.hears

    @property
    def set_aside(self) -> int:
        """How many handled rows have an outcome that the database refuses: each is named in the log."""
        return self._completer.set_aside

    @property
    def is_in_this_loop(self) -> bool:
        """Whether this is called from the event loop that it was started in."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def wake(self, queue: str) -> None:
        """Wake the consumers of a queue; from any thread, and also when they are gone, or not there yet."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.wakeups.wake, queue)

    @property
    def stalled(self) -> Sequence[str]:
        """What is wrong with the loops of this process: one has ended by itself, or hangs; empty if all of them beat.

        A loop that cannot reach the database, or its destination, beats.
        """
        return [problem for each in (*self._services, *self._consumers_and_lanes) for problem in each.stalled]

    @property
    def listens(self) -> bool:
        """Whether new rows are listened for, or would be if the connection were up; False: polling is all there is."""
        return self._receiver.is_enabled

    @property
    def _services(self) -> Sequence[Service]:
        upkeep = (self._completer, self._renewer, self._rescuer)
        watchers = (self._reminder, self._queue_watcher, self._obstructions)
        of_pauses = () if self._pause_reader is None else (self._pause_reader,)
        return (self._receiver, *of_pauses, *upkeep, *watchers, self._lookout, self._surveyor)

    def start(self) -> None:
        """Start listening and the upkeep of leases."""
        self._loop = asyncio.get_running_loop()
        for service in self._services:
            service.start()

    def check_connections(self) -> None:
        """Warn if the consumers that were made so far can use up the connections that they have together."""
        most, needed = self.store.most_connections, self._workers + self._lanes + 1
        if most is not None and most < needed:
            self.log(
                logging.WARNING,
                f"the engine's pool gives out {most} connections at a time, and {needed} can be wanted: by handlers "
                f"({self._workers} at a time, if each opens a session), by lanes of forwarders ({self._lanes}), and "
                "by a claim; they would wait for one another, and everything else in this process for them. Write "
                f"create_async_engine(..., pool_size={needed}), or lower max_workers",
                None,
            )

    async def stop(self, grace: float | None) -> None:
        """Write the outcomes that are left, then close everything.

        Handlers and lanes have been stopped by then, and have used up to ``grace`` for themselves. The writes get as
        much again, but at least 1 s and at most ``WRITE_SECONDS``: whatever hangs, a whole stop takes ``grace`` and
        these few seconds.
        """
        patience = WRITE_SECONDS if grace is None else min(max(grace, 1.0), WRITE_SECONDS)
        # The last that is pushed is stopped first. The presence goes last, after all that was leased under it has been
        # given back, and leases are renewed until then.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._receiver.stop)
            stack.push_async_callback(self._let_go)
            stack.push_async_callback(self._renewer.stop, UPKEEP_SECONDS)
            stack.push_async_callback(self._completer.stop, patience)
            stack.push_async_callback(self._rescuer.stop, UPKEEP_SECONDS)
            stack.push_async_callback(self._reminder.stop)
            stack.push_async_callback(self._obstructions.stop, UPKEEP_SECONDS)
            stack.push_async_callback(self._queue_watcher.stop, UPKEEP_SECONDS)
            stack.push_async_callback(self._lookout.stop, UPKEEP_SECONDS)
            stack.push_async_callback(self._surveyor.stop, UPKEEP_SECONDS)
            if self._pause_reader is not None:
                stack.push_async_callback(self._pause_reader.stop, UPKEEP_SECONDS)

    def _read_pauses(self) -> PauseReader | None:
        controls = self.store.controls
        if controls is None:
            return None
        health = Health("outbox control table", self.log, self.store.explain)
        self._reminder.watch(Watched(health=health, is_wanted=lambda: not self.health.is_down))
        return PauseReader(controls, self.pauses, hears=lambda: self.hears, health=health, log=self.log)

    def _is_quiet(self) -> bool:
        """Return whether nothing has happened in the table for a while, as far as this process hears."""
        return self.hears and self.wakeups.news.seconds > QUIET_SECONDS

    def _shards(self) -> list[Shard]:
        """Return the shards from which rows are taken in this process."""
        return [Shard(queue, number) for queue in self.wakeups.queues for number in range(SHARDS)]

    async def _let_go(self) -> None:
        """Close the connection for leases; one that does not answer is not waited for, nor does it end the stop."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.store.let_go()

    def consumer(
        self,
        name: str,
        queues: Sequence[str],
        execute: Callable[[OutboxRow], Awaitable[Outcome]],
        *,
        workers: int,
        batch_size: int,
        lease_seconds: float,
        min_interval: float,
        max_interval: float,
    ) -> Consumer:
        """Return a consumer of these queues, not started."""
        self._workers += workers
        self._renewer.interval = min(self._renewer.interval, lease_seconds / LOOKS_PER_LEASE)
        stock = Stock(workers, batch_size)
        rounds, wakeup, pacer = self._watch(queues, min_interval, max_interval)
        fetcher = Fetcher(
            name,
            store=self.store,
            stock=stock,
            leases=self.leases,
            completer=self._completer,
            rounds=rounds,
            wakeup=wakeup,
            pacer=pacer,
            pauses=self.pauses,
            lease_seconds=lease_seconds,
            health=self.health,
            meter=self._meter,
        )
        consumer = Consumer(
            name,
            execute=execute,
            workers=workers,
            fetcher=fetcher,
            stock=stock,
            leases=self.leases,
            completer=self._completer,
            log=self.log,
            meter=self._meter,
            text_of=self._text_of,
        )
        self._consumers_and_lanes.add(consumer)
        return consumer

    def lane(
        self,
        name: str,
        queues: Sequence[str],
        destination: Destination,
        team: Team,
        failure: FailurePolicy,
        *,
        batch_size: int,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        send_timeout: float,
        prepare: Prepare | None = None,
        positions: Positions | None = None,
        min_interval: float,
        max_interval: float,
    ) -> Lane:
        """Return a lane from these queues to a destination, not started."""
        # Positions are written beside a hand-over, which has a connection of its own.
        self._lanes += 1 if positions is None else 2
        rounds, wakeup, pacer = self._watch(queues, min_interval, max_interval, team.bell)
        lane = Lane(
            name,
            store=self.store,
            destination=destination,
            team=team,
            rounds=rounds,
            wakeup=wakeup,
            pacer=pacer,
            failure=failure,
            batch_size=batch_size,
            batch_bytes=batch_bytes,
            send_timeout=send_timeout,
            prepare=prepare,
            positions=positions,
            pauses=self.pauses,
            health=self.health,
            log=self.log,
            meter=self._meter,
        )
        self._consumers_and_lanes.add(lane)
        return lane

    async def lag(self, queues: Sequence[str], *, at_most: int | None = None) -> Lag:
        """Ask how many rows of these queues could be taken now, and how long they could have been.

        With ``at_most``, no more of each shard are counted.
        """
        async with asyncio.timeout(DATABASE_SECONDS):
            return await self.store.lag(Rounds(queues, SHARDS).all, at_most=at_most)

    async def unconsumed(self) -> list[UnconsumedQueue] | None:
        """Find queues that have rows and no consumer; None while it is not known who consumes what."""
        return await self._queue_watcher.look() if self._consumed.is_complete else None

    def remind_of(self, health: Health, queues: Sequence[str], *, is_wanted: Callable[[], bool]) -> Watched:
        """Remind the log of it while it is down, with how many rows of these queues wait; until ``forget``.

        Args:
            health: Of where the rows go.
            queues: The queues whose rows it sends there.
            is_wanted: Whether anybody tries to carry them now.
        """
        watched = Watched(health=health, lag=lambda: self.lag(queues, at_most=MOST_COUNTED), is_wanted=is_wanted)
        self._reminder.watch(watched)
        return watched

    def forget(self, watched: Watched) -> None:
        """Remind the log of it no longer."""
        self._reminder.forget(watched)

    def guard(self, queues: Sequence[str], patience: float, *, is_wanted: Callable[[], bool]) -> Guarded:
        """Log which sessions hold shards of these queues for longer than ``patience`` seconds, until ``unguard``."""
        guarded = Guarded(shards=Rounds(queues, SHARDS).all, patience=patience, is_wanted=is_wanted)
        self._obstructions.guard(guarded)
        return guarded

    def unguard(self, guarded: Guarded) -> None:
        """End what ``guard`` began."""
        self._obstructions.forget(guarded)

    def blocked_by(self, guarded: Guarded) -> list[str]:
        """Return in words who holds any of these shards for too long."""
        return self._obstructions.of(guarded)

    def _watch(
        self, queues: Sequence[str], shortest: float, longest: float, team_bell: TeamBell | None = None
    ) -> tuple[Rounds, Wakeup, Pacer]:
        rounds = Rounds(queues, SHARDS, self.wakeups.news, self.pauses)
        wakeup = self.wakeups.register(queues, team_bell)
        # What is due in a paused queue is nobody's business now.
        pacer = Pacer(wakeup, self._lookout, lambda: rounds.taken_queues, shortest=shortest, longest=longest)
        return rounds, wakeup, pacer
