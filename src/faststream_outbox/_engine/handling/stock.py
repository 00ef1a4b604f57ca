"""Claimed rows between the fetcher and the workers."""

import asyncio
from collections import deque
from collections.abc import Sequence

from faststream_outbox._store.protocol import DEFAULT_BATCH_BYTES
from faststream_outbox._values.row import OutboxRow

AHEAD_SECONDS = 0.5
"""Rows are claimed ahead of free workers for about this much work, so that few of them wait while others are idle."""

BATCHES_AHEAD = 2
"""The most that is claimed ahead. With a single batch, claims would be for the half of it that is gone."""

MOST_BYTES = DEFAULT_BATCH_BYTES
"""Nothing is claimed while the rows that no worker has begun have so many. A claim can bring as many again."""

_SMOOTHING = 0.2


class Stock:
    """Claimed rows that no worker has begun, and the sense of how many there should be.

    While handlers are quick, up to two batches are claimed ahead: when one has been worked off, a whole one is claimed
    while the other is. While handlers are slow, none is: a row in the stock of a busy process is a row that an idle
    process cannot take.

    Args:
        workers: How many rows are worked on at a time.
        batch_size: The most rows of one claim.
    """

    def __init__(self, workers: int, batch_size: int) -> None:
        self._workers = workers
        self._batch_size = batch_size
        self._rows: deque[OutboxRow] = deque()
        self._bytes = 0
        self._busy = 0
        self._closed = False
        self._is_asked = False
        self._pace: float | None = None
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()

    def add(self, rows: Sequence[OutboxRow]) -> None:
        self._rows.extend(rows)
        self._bytes += sum(len(row.payload) for row in rows)
        if rows:
            self._arrived.set()

    async def take(self) -> OutboxRow | None:
        """Wait for a row; the taker is busy until it calls ``done``. None once the stock is closed."""
        if self._is_asked and self._room():
            # A handler that never waits lets nobody else run: all rows would be worked off before more are claimed.
            await asyncio.sleep(0)
        while not self._rows and not self._closed:
            self._arrived.clear()
            await self._arrived.wait()
        if self._closed:
            return None
        self._busy += 1
        self._left.set()
        row = self._rows.popleft()
        self._bytes -= len(row.payload)
        return row

    def done(self, seconds: float) -> None:
        """Note that a taken row was worked on for ``seconds``."""
        self._busy -= 1
        self._pace = seconds if self._pace is None else self._pace + _SMOOTHING * (seconds - self._pace)
        self._left.set()

    def empty(self) -> list[OutboxRow]:
        """Take out all rows that no worker has begun."""
        rows = list(self._rows)
        self._rows.clear()
        self._bytes = 0
        return rows

    async def room(self) -> int:
        """Wait until rows should be claimed, and tell how many; 0 once the stock is closed."""
        self._is_asked = True
        try:
            while (room := self._room()) == 0 and not self._closed:
                self._left.clear()
                await self._left.wait()
        finally:
            self._is_asked = False
        return 0 if self._closed else room

    def close(self) -> None:
        """Stop handing out rows and asking for them; end all waiting calls of ``take`` and ``room``."""
        self._closed = True
        self._arrived.set()
        self._left.set()

    def open(self) -> None:
        """Begin again after ``close``."""
        self._closed = False

    def _room(self) -> int:
        if self._bytes >= MOST_BYTES:
            return 0
        in_hand = len(self._rows) + self._busy
        target = self._workers + self._ahead()
        if in_hand > target // 2 and (self._rows or self._busy == self._workers):
            # Enough for now: a claim for many rows costs as much as one for a single row.
            return 0
        return max(1, min(self._batch_size, target - in_hand))

    def _ahead(self) -> int:
        if self._pace is None:
            return 0
        return int(min(BATCHES_AHEAD * self._batch_size, self._workers * AHEAD_SECONDS / max(self._pace, 1e-6)))
