"""Puts the loops of one broker together and starts and stops them in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from faststream_outbox._engine.completer import Completer
from faststream_outbox._engine.consumer import Consumer
from faststream_outbox._engine.destination import Destination
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.fetcher import Fetcher
from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.lane import Lane
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.listening import Listening
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.renewer import Renewer
from faststream_outbox._engine.rescuer import Rescuer
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.stock import Stock
from faststream_outbox._engine.wakeups import Wakeup, Wakeups
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.outcome import Outcome
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.schema import SHARDS

LOOKS_PER_LEASE = 6


class Runtime:
    """What all consumers and lanes of one broker share: leases, wake-ups, upkeep, and one connection for each of two.

    Args:
        store: Where rows are.
        log: Where changes of state are written.
        listen: Whether to listen for new rows; False polls only.
    """

    def __init__(self, store: Store, log: Log, *, listen: bool) -> None:
        self.store = store
        self.log = log
        self.health = Health("outbox database", log)
        self.wakeups = Wakeups()
        self.leases = Leases()
        writes = asyncio.Lock()
        self._listening = Listening(store, self.wakeups, self.health, log, enabled=listen)
        self._completer = Completer(store, self.leases, writes, self.health)
        self._renewer = Renewer(store, self.leases, writes, self.health, log)
        self._rescuer = Rescuer(store, self.wakeups, writes, self.health)
        self._upkeep: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start listening; the upkeep of leases begins as soon as this process has a name to hold them under."""
        self._listening.start()
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._start_upkeep(), name="outbox-upkeep")

    async def _start_upkeep(self) -> None:
        token = await self._listening.token()
        for service in (self._completer, self._renewer, self._rescuer):
            service.token = token
            service.start()

    async def stop(self, grace: float | None) -> None:
        """Write what is still to be written, for up to ``grace`` seconds, then let go of everything.

        The presence goes last, after all that was leased under it has been given back.
        """
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
            self._upkeep = None
        await self._rescuer.stop(grace=1.0)
        await self._completer.stop(grace=60.0 if grace is None else max(grace, 1.0))
        await self._renewer.stop(grace=1.0)
        await self._listening.stop()

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
        """Make a consumer of these queues; it is not started."""
        self._renewer.interval = min(self._renewer.interval, lease_seconds / LOOKS_PER_LEASE)
        stock = Stock(workers, batch_size)
        rounds, wakeup, pacer = self._watch(queues, min_interval, max_interval)
        fetcher = Fetcher(
            name,
            store=self.store,
            stock=stock,
            leases=self.leases,
            rounds=rounds,
            wakeup=wakeup,
            pacer=pacer,
            token=self._listening.token,
            lease_seconds=lease_seconds,
            health=self.health,
        )
        return Consumer(name, execute=execute, workers=workers, fetcher=fetcher, stock=stock, completer=self._completer)

    def lane(
        self,
        name: str,
        queues: Sequence[str],
        destination: Destination,
        failure: FailurePolicy,
        *,
        batch_size: int,
        send_timeout: float,
        min_interval: float,
        max_interval: float,
    ) -> Lane:
        """Make a lane from these queues to a destination; it is not started."""
        rounds, wakeup, pacer = self._watch(queues, min_interval, max_interval)
        return Lane(
            name,
            store=self.store,
            destination=destination,
            rounds=rounds,
            wakeup=wakeup,
            pacer=pacer,
            failure=failure,
            batch_size=batch_size,
            send_timeout=send_timeout,
            health=self.health,
        )

    def _watch(self, queues: Sequence[str], shortest: float, longest: float) -> tuple[Rounds, Wakeup, Pacer]:
        rounds = Rounds(queues, SHARDS)
        wakeup = self.wakeups.register(queues)
        places = rounds.all
        pacer = Pacer(wakeup, lambda: self.store.seconds_to_next_due(places), shortest=shortest, longest=longest)
        return rounds, wakeup, pacer
