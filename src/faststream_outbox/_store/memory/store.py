"""The store in memory, for tests of applications: the same protocol, one process, nothing kept."""

import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from faststream_outbox._store.memory.controls import MemoryControls
from faststream_outbox._store.memory.handing_over import MemoryHandOver
from faststream_outbox._store.memory.positions import MemoryPositions
from faststream_outbox._store.memory.records import Record, deferred_until, fitting, in_turns, shared_out, utc_now
from faststream_outbox._store.memory.table import MemoryListener
from faststream_outbox._store.memory.writer import MemoryWriter
from faststream_outbox._store.protocol import (
    DEFAULT_BATCH_BYTES,
    LONGEST_REST_SECONDS,
    RESCUED_AT_ONCE,
    Announcement,
    Claim,
    Holder,
    Lag,
    LeftOut,
    Listener,
    Outlook,
    PausesChanged,
    Rescue,
)
from faststream_outbox._values.control import PausedKey
from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.outcome import Released, Settlement, Unwritten
from faststream_outbox._values.position import Mark
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard


class MemoryStore(MemoryWriter):
    """It is the table, the writer and the store at once, as the three share everything in one process."""

    async def claim(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        lease_seconds: float,
        token: str,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        paused: Sequence[PausedKey] = (),
    ) -> Claim:
        now = utc_now()
        due = self._at(shards, lambda r: r.is_due(now) and not r.locked and not _is_paused(r, paused))
        ready = self._at(shards, lambda r: r.is_ready and not r.locked and not _is_paused(r, paused))
        found = shared_out(due, ready, limit)
        taken = fitting(in_turns(found), max_bytes)
        rows = []
        for record in taken:
            record.token = token
            record.next_attempt_at = now + timedelta(seconds=lease_seconds)
            record.row = record.row._replace(deliveries_count=record.row.deliveries_count + 1, acquired_at=now)
            rows.append(record.row)
        return Claim(sorted(rows, key=lambda row: row.id), has_more=len(taken) < len(found) or len(rows) == limit)

    async def settle(self, settlements: Sequence[Settlement], *, token: str | None) -> Sequence[Unwritten]:
        for row, outcome in settlements:
            record = self._records.get(row.id)
            if record is None or record.token != token or record.row.deliveries_count != row.deliveries_count:
                continue
            self._apply(record, outcome)
        return []

    async def unsettled(self, rows: Sequence[OutboxRow]) -> set[int]:
        return {row.id for row in rows if self._is_unsettled(row)}

    def _is_unsettled(self, row: OutboxRow) -> bool:
        record = self._records.get(row.id)
        counts = (row.deliveries_count, row.attempts_count)
        return (
            record is not None
            and record.dead is None
            and counts
            == (
                record.row.deliveries_count,
                record.row.attempts_count,
            )
        )

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        renewed = set()
        for row in rows:
            record = self._records.get(row.id)
            if record and record.token == token and record.row.deliveries_count == row.deliveries_count:
                record.next_attempt_at = utc_now() + timedelta(seconds=lease_seconds)
                renewed.add(row.id)
        return renewed

    async def give_back(self, queues: Sequence[str], *, known: Sequence[int], token: str) -> None:
        for record in self._records.values():
            if record.token == token and record.row.queue in queues and record.row.id not in known:
                self._apply(record, Released(started=False))

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        now = utc_now()
        freed = set()
        for record in self._records.values():
            if record.token is not None and record.next_attempt_at is not None and record.next_attempt_at <= now:
                self._free(record, next_attempt_at=_rescued_until(record.row, now))
                freed.add(record.row.queue)
        return Rescue(freed_queues=frozenset(freed), absent=frozenset())

    @functools.cached_property
    def positions(self) -> MemoryPositions:
        return MemoryPositions(
            lambda: {Mark(id_, r.row.idempotency_key) for id_, r in self._records.items() if r.dead is None}
        )

    @functools.cached_property
    def controls(self) -> MemoryControls:
        return MemoryControls(self._say_pauses_changed)

    def _say_pauses_changed(self) -> None:
        for listener in self._listeners:
            listener.signals.put_nowait(PausesChanged())

    most_connections = None

    def reserve(self) -> None:
        """Memory has no connections."""

    async def let_go(self) -> None:
        """Memory has none to close."""

    async def outlook(self, shards: Sequence[Shard]) -> Mapping[str, Outlook]:
        ready = {record.row.queue for record in self._at(shards, lambda record: record.is_ready)}
        first: dict[str, datetime] = {}
        for record in self._at(shards, lambda record: record.is_waiting):
            if (time := record.next_attempt_at) is not None:
                first[record.row.queue] = min(time, first.get(record.row.queue, time))
        now = utc_now()
        seconds = {queue: (time - now).total_seconds() for queue, time in first.items()}
        return {queue: Outlook(queue in ready, seconds.get(queue)) for queue in ready | seconds.keys()}

    async def make_due(self, shards: Sequence[Shard], *, slot: int, limit: int) -> int:
        now = utc_now()
        times = {deferred_until(now, slot, at_least=timedelta()) + timedelta(minutes=minutes) for minutes in (0, 1)}
        found = [
            record
            for record in self._at(shards, lambda record: record.is_waiting and record.next_attempt_at in times)
            if record.row.last_attempt_at is not None
        ]
        for record in found[:limit]:
            record.next_attempt_at = now
        return len(found[:limit])

    async def retry_now(self, queue: str | None) -> Mapping[str, int]:
        now = utc_now()
        woken: Counter[str] = Counter()
        for record in self.records:
            is_meant = queue in (None, record.row.queue, origin_of(record.row.queue))
            is_kept_waiting = record.is_waiting and not record.locked and not record.is_due(now)
            if is_meant and is_kept_waiting and record.row.last_attempt_at is not None:
                record.next_attempt_at = now
                woken[record.row.queue] += 1
        self._ring(set(woken))
        return woken

    async def lag(self, shards: Sequence[Shard], *, at_most: int | None = None) -> Lag:
        now = utc_now()
        since = []
        for shard in shards:
            for kind in (self._at([shard], lambda r: r.is_ready), self._at([shard], lambda r: r.is_due(now))):
                since += [record.next_attempt_at or record.row.created_at for record in kind[:at_most]]
        return Lag(len(since), (now - min(since)).total_seconds() if since else 0.0)

    async def holders(self, shards: Sequence[Shard]) -> list[Holder]:
        """Return no holder: all users of the memory are of this process."""
        return []

    async def survey(self, shards: Sequence[Shard]) -> None:
        """Memory keeps nothing of what was delivered: there is nothing to pass by."""

    async def unconsumed(self, consumed: Sequence[str], *, limit: int) -> list[str]:
        now = utc_now()
        waiting = {r.row.queue for r in self._records.values() if r.is_ready or r.is_due(now)}
        return sorted(waiting - {*consumed})[:limit]

    async def announce(self, queues: Sequence[str]) -> None:
        for listener in self._listeners:
            listener.signals.put_nowait(Announcement(frozenset(queues)))

    @asynccontextmanager
    async def hand_over(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        breadth: int = 1,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        idle_seconds: float = 0.0,
        left_out: Sequence[LeftOut] = (),
        paused: Sequence[PausedKey] = (),
        forwarder: str | None = None,
        only: Sequence[int] | None = None,
    ) -> AsyncIterator[MemoryHandOver | None]:
        now = utc_now()
        breadth = min(breadth, limit) if only is None else 1
        locked = list(itertools.islice((p for p in shards if self._has_work(p, now)), breadth))
        if not locked:
            yield None
            return
        share = limit // len(locked)
        if only is None:
            found = {shard: self._take(shard, share, now, left_out, paused) for shard in locked}
        else:
            found = {shard: self._at([shard], lambda r: self._is_known(r, only, now))[:share] for shard in locked}
        taken = fitting(in_turns(itertools.chain(*found.values())), max_bytes)
        is_cut = len(taken) < sum(map(len, found.values()))
        hand_over = MemoryHandOver(
            shards=locked,
            vacant=[] if is_cut else [shard for shard in locked if not found[shard]],
            has_more=is_cut or any(len(records) == share for records in found.values()),
            is_whole=only is None and len(locked) < breadth,
            records=sorted(taken, key=lambda record: record.row.id),
            acquired_at=now,
            tokens={} if forwarder is None else self.positions.tokens(forwarder, locked),
        )
        self._locked.update(locked)
        for record in taken:
            record.locked = True
        try:
            yield hand_over
            if forwarder is not None:
                self.positions.move(forwarder, hand_over.moves)
            await self.settle(hand_over.settlements, token=None)
        finally:
            self._locked.difference_update(locked)
            for record in taken:
                record.locked = False

    @asynccontextmanager
    async def listen(self, token: str) -> AsyncIterator[Listener | None]:
        listener = MemoryListener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def ping(self) -> bool:
        return True

    def explain(self, error: BaseException) -> Explanation:
        return unexplained(error)

    async def differences(self) -> dict[str, list[str]]:
        return {}

    def _has_work(self, shard: Shard, now: datetime) -> bool:
        return shard not in self._locked and bool(self._at([shard], lambda r: r.is_ready or r.is_due(now)))

    @staticmethod
    def _is_known(record: Record, only: Sequence[int], now: datetime) -> bool:
        return record.row.id in only and (record.is_ready or record.is_due(now))

    def _take(
        self, shard: Shard, limit: int, now: datetime, left_out: Sequence[LeftOut], paused: Sequence[PausedKey]
    ) -> list[Record]:
        here = [each for each in left_out if each.shard == shard]
        left = {each.id for each in here}
        held = {each.held_key for each in here} - {None}
        # The first row of each key that failed and is not settled holds back those behind it.
        first: dict[str, int] = {}
        for record in self._at([shard], lambda r: r.holds_key):
            if record.row.key is not None:
                first[record.row.key] = min(record.row.id, first.get(record.row.key, record.row.id))

        def is_free(record: Record) -> bool:
            if record.row.id in left or record.row.key in held or _is_paused(record, paused):
                return False
            return record.row.key is None or record.row.id <= first.get(record.row.key, record.row.id)

        due = self._at([shard], lambda r: r.is_due(now) and is_free(r))
        ready = self._at([shard], lambda r: r.is_ready and is_free(r))
        # Ready rows of their keys may stand behind those that a handler has given back.
        given_back = sum(record.is_given_back for record in due[:limit])
        return shared_out(due, ready, limit, at_least=given_back)


def _is_paused(record: Record, paused: Sequence[PausedKey]) -> bool:
    return any(key == record.row.key and queue in {None, record.row.queue} for queue, key in paused)


def _rescued_until(row: OutboxRow, now: datetime) -> datetime:
    deliveries = row.deliveries_count - RESCUED_AT_ONCE
    if deliveries <= 0:
        return row.created_at
    return now + timedelta(seconds=min(LONGEST_REST_SECONDS, 2 ** min(deliveries, 30)))
