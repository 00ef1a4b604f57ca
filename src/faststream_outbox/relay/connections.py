"""Connections to many databases, bounded for each and together. Where nothing happens, none is kept.

SQLAlchemy's own pools keep what they have opened. A relay has a database for each tenant, and most of them are idle.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util import await_only, greenlet_spawn

WAIT_SECONDS = 30.0
"""How long a connection is waited for, as in SQLAlchemy's pools."""


class Budget:
    """How many connections a process may have, over all databases, and which of them nobody uses.

    Args:
        most: The most; None: no bound but those of the databases.
    """

    def __init__(self, most: int | None = None) -> None:
        self.open = 0
        """How many there are."""
        self._free = None if most is None else asyncio.Semaphore(most)
        self._waiting = 0
        self._idle: dict[ConnectionPoolEntry, tuple[FrugalPool, float]] = {}
        """Those that nobody uses, the longest unused first, with the time since when."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a connection."""
        return self._waiting > 0

    async def enter(self) -> None:
        """Wait until there may be one more connection; one that nobody uses is closed for it."""
        if self._free is not None:
            if self._free.locked() and self._idle:
                await self._close(next(iter(self._idle)))
            self._waiting += 1
            try:
                await self._free.acquire()
            finally:
                self._waiting -= 1
        self.open += 1

    def leave(self) -> None:
        """Note that a connection is closed."""
        self.open -= 1
        if self._free is not None:
            self._free.release()

    def keep(self, record: ConnectionPoolEntry, pool: "FrugalPool") -> None:
        """Keep a connection that nobody uses for a while."""
        self._idle[record] = pool, time.monotonic()

    def take(self, pool: "FrugalPool") -> ConnectionPoolEntry | None:
        """Return the connection of a pool that was used last; None if it has none."""
        record = next((each for each in reversed(self._idle) if self._idle[each][0] is pool), None)
        if record is not None:
            del self._idle[record]
        return record

    def count_idle(self, pool: "FrugalPool") -> int:
        """Return how many connections of a pool nobody uses."""
        return sum(each is pool for each, _ in self._idle.values())

    async def close_idle(self, seconds: float = 0.0, *, of: "FrugalPool | None" = None) -> None:
        """Close connections that nobody has used for so long.

        Args:
            seconds: For how long at least.
            of: Those of this pool alone.
        """
        latest = time.monotonic() - seconds
        chosen = [record for record, (pool, since) in self._idle.items() if since <= latest and of in {None, pool}]
        await asyncio.gather(*map(self._close, chosen))

    async def _close(self, record: ConnectionPoolEntry) -> None:
        if self._idle.pop(record, None) is not None:
            try:
                await greenlet_spawn(record.close)
            finally:
                self.leave()


class FrugalPool(Pool):
    """A pool that gives each connection back to a budget.

    SQLAlchemy makes it with its own arguments; ``bound`` adds ours. A copy (``recreate``) has the same budget and no
    bound of its own: the engine's own parts open the listening connection with it.
    """

    _budget: Budget
    _gate: asyncio.Semaphore | None = None
    _used = 0

    def bound(self, budget: Budget, most: int) -> None:
        """Set the bounds: that of all databases together, and the most connections of this one."""
        self._budget = budget
        self._gate = asyncio.Semaphore(most)

    def status(self) -> str:
        """Return what is known of it."""
        return f"FrugalPool: {self._budget.open} connections of all databases together"

    def checkedout(self) -> int:
        """Return how many connections are in use; metrics ask for it, as of SQLAlchemy's own pools."""
        return self._used

    def checkedin(self) -> int:
        """Return how many connections nobody uses."""
        return self._budget.count_idle(self)

    def recreate(self) -> "FrugalPool":
        """Return a copy without connections."""
        copy = self.__class__(
            self._creator,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )
        copy._budget = self._budget  # noqa: SLF001 - of its own class
        return copy

    def dispose(self) -> None:
        """Close the connections that nobody uses."""
        await_only(self._budget.close_idle(of=self))

    def _do_get(self) -> ConnectionPoolEntry:
        if self._gate is not None:
            _wait(self._gate.acquire)
        try:
            record = self._budget.take(self) or self._open()
        except BaseException:
            self._open_gate()
            raise
        self._used += 1
        return record

    def _open(self) -> ConnectionPoolEntry:
        _wait(self._budget.enter)
        try:
            return self._create_connection()
        except BaseException:
            self._budget.leave()
            raise

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._used -= 1
        try:
            if record.dbapi_connection is None:
                # It was closed, or given away.
                self._budget.leave()
            elif self._budget.is_wanted or self._gate is None:
                try:
                    record.close()
                finally:
                    self._budget.leave()
            else:
                self._budget.keep(record, self)
        finally:
            self._open_gate()

    def _open_gate(self) -> None:
        if self._gate is not None:
            self._gate.release()


def _wait(enter: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async def wait() -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await enter()

    try:
        await_only(wait())
    except TimeoutError as error:
        msg = f"no connection was free within {WAIT_SECONDS:g} s: raise `connections`, or use fewer lanes"
        raise PoolTimeoutError(msg) from error
