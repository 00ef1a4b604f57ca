"""Claims rows for a consumer's workers."""

import asyncio
import time
from collections.abc import Sequence

from faststream_outbox._engine.handling.completer import Completer
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.stock import Stock
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.pauses import Pauses
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Claim, Store
from faststream_outbox._values.shard import Shard

CATCH_UP_SECONDS = 0.1
"""How long to leave the completer alone with a backlog."""

FULL_SECONDS = 1.0
"""How long to claim nothing while each queue has too many rows set aside."""


class Fetcher(Service):
    """Keeps a stock of claimed rows ready for the workers.

    Args:
        name: The consumer's name.
        store: Where rows are claimed.
        stock: Where claimed rows go; it says how many there is room for.
        leases: Looks after what is claimed.
        completer: Nothing is claimed while it is behind.
        rounds: The shards to claim from.
        wakeup: Rings when there may be new rows, and when it is known under which token to claim them.
        pacer: Decides when to look again.
        pauses: What is paused for all processes.
        lease_seconds: The length of a lease.
        health: The database's.
        meter: Told of each claim.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        stock: Stock,
        leases: Leases,
        completer: Completer,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        pauses: Pauses | None = None,
        lease_seconds: float,
        health: Health,
        meter: Meter = NO_METER,
    ) -> None:
        super().__init__(f"outbox-fetcher-{name}", health)
        self._consumer = name
        self._meter = meter
        self._store = store
        self._stock = stock
        self._leases = leases
        self._completer = completer
        self._rounds = rounds
        self._wakeup = wakeup
        self._pacer = pacer
        self._pauses = pauses or Pauses()
        self._lease_seconds = lease_seconds
        self._has_unanswered_claim = False

    def start(self) -> None:
        super().start()
        self._stock.open()

    def interrupt(self) -> None:
        self._wakeup.ring()
        self._stock.close()

    async def run_once(self) -> None:
        if not self._leases.token.value or self._rounds.is_paused:
            with self.resting():
                await self._wakeup.wait(None)
            self._wakeup.clear()
            return
        with self.resting():
            room = await self._stock.room()
        if room == 0:
            return
        if self._completer.is_behind:
            # Claims may work where writes do not; what is in hand must stay bounded then too.
            await self.sleep(CATCH_UP_SECONDS)
            return
        shards = self._shards()
        if not shards:
            await self.sleep(FULL_SECONDS)
            return
        began = time.monotonic()
        self._wakeup.clear()
        async with asyncio.timeout(DATABASE_SECONDS):
            rows, has_more = await self._claim(shards, room)
        self._meter.claimed(self._consumer, rows, time.monotonic() - began)
        self.health.recovered(self.name)
        self._rounds.advance()
        if rows:
            self._rounds.found()
            # Before a handler can hold the last connection of the pool.
            self._store.reserve()
        self._leases.hold(rows, self._lease_seconds)
        self._stock.add(rows)
        if not has_more:
            with self.resting():
                await self._pacer.rest(found=bool(rows))

    def _shards(self) -> Sequence[Shard]:
        """Return the shards to claim from, without queues of whose rows very many are set aside."""
        full = self._completer.full_queues
        shards = self._rounds.next()
        return [shard for shard in shards if shard.queue not in full] if full else shards

    async def _claim(self, shards: Sequence[Shard], room: int) -> Claim:
        token = self._leases.token.value
        if self._has_unanswered_claim:
            # It may have been carried out, and only its answer lost. No other consumer of this process has our queues.
            await self._store.give_back(self._rounds.queues, known=self._leases.ids, token=token)
        self._has_unanswered_claim = True
        claimed = await self._store.claim(
            shards, limit=room, lease_seconds=self._lease_seconds, token=token, paused=self._pauses.keys
        )
        self._has_unanswered_claim = False
        return claimed
