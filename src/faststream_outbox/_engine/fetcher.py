"""Claims rows for a consumer's workers."""

from collections.abc import Awaitable, Callable

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import Service
from faststream_outbox._engine.stock import Stock
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Store


class Fetcher(Service):
    """Keeps a stock of claimed rows ready for the workers.

    Args:
        name: The consumer's name.
        store: Where rows are claimed.
        stock: Where claimed rows go; it says how many there is room for.
        leases: Looks after what is claimed.
        rounds: The places to claim from.
        wakeup: Rings when there may be new rows.
        pacer: Decides when to look again.
        token: Gives the name under which rows are leased.
        lease_seconds: The length of a lease.
        health: The database's.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        stock: Stock,
        leases: Leases,
        rounds: Rounds,
        wakeup: Wakeup,
        pacer: Pacer,
        token: Callable[[], Awaitable[str]],
        lease_seconds: float,
        health: Health,
    ) -> None:
        super().__init__(f"outbox-fetcher-{name}", health)
        self._store = store
        self._stock = stock
        self._leases = leases
        self._rounds = rounds
        self._wakeup = wakeup
        self._pacer = pacer
        self._token = token
        self._lease_seconds = lease_seconds

    def interrupt(self) -> None:
        self._wakeup.ring()
        self._stock.close()

    async def run_once(self) -> None:
        room = await self._stock.room()
        token = await self._token()
        if self.is_stopping or room == 0:
            return
        self._pacer.begin_look()
        rows = await self._store.claim(self._rounds.next(), limit=room, lease_seconds=self._lease_seconds, token=token)
        self.health.recovered()
        self._rounds.advance()
        self._leases.hold(rows, self._lease_seconds)
        self._stock.add(rows)
        if len(rows) < room and not self.is_stopping:
            await self._pacer.rest(found=bool(rows))
