"""Looks at queues and rows of the store in memory."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from faststream_outbox._store.memory.records import Record, utc_now
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._values.figures import Count, QueueFigures, RowState, SeenRow

_ORDER: Mapping[RowState, Callable[[Record], object]] = MappingProxyType(
    {
        RowState.READY: lambda record: record.row.id,
        RowState.LEASED: lambda record: (record.row.acquired_at, record.row.id),
        RowState.PARKED: lambda record: (record.row.last_attempt_at, record.row.id),
    }
)


class MemoryOnlooker:
    """Counts the rows of a ``MemoryStore``, and returns some. Counts are whole."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def queues(self, *, limit: int, at_most: int, behind: str = "") -> Sequence[QueueFigures]:
        names = sorted({record.row.queue for record in self._store.records if record.row.queue > behind})
        return [self._figures(name) for name in names[:limit]]

    async def seen(self, queue: str, state: RowState, *, limit: int, max_bytes: int) -> Sequence[SeenRow]:
        found = self._in_state(queue, state)
        found.sort(key=_ORDER.get(state, lambda record: (record.next_attempt_at, record.row.id)))  # type: ignore[arg-type]
        return [
            SeenRow(
                row=record.row._replace(payload=record.row.payload[:max_bytes]),
                state=state,
                size=len(record.row.payload),
                next_attempt_at=record.next_attempt_at,
                exception=record.dead.exception if record.dead else None,
            )
            for record in found[:limit]
        ]

    def _figures(self, queue: str) -> QueueFigures:
        now = utc_now()
        found = {state: self._in_state(queue, state) for state in RowState}
        since = [
            record.next_attempt_at or record.row.created_at
            for state in (RowState.READY, RowState.DUE)
            for record in found[state]
        ]
        waiting = [
            r.next_attempt_at for state in (RowState.TIMER, RowState.RETRY) for r in found[state] if r.next_attempt_at
        ]
        return QueueFigures(
            queue=queue,
            ready=Count(len(found[RowState.READY])),
            due=Count(len(found[RowState.DUE])),
            timers=Count(len(found[RowState.TIMER])),
            retries=Count(len(found[RowState.RETRY])),
            leased=Count(len(found[RowState.LEASED])),
            leases_run_out=sum(r.next_attempt_at < now for r in found[RowState.LEASED] if r.next_attempt_at),
            parked=Count(len(found[RowState.PARKED])),
            held=sum(record.holds_key for record in found[RowState.PARKED]),
            oldest_seconds=max(0.0, (now - min(since)).total_seconds()) if since else None,
            next_due_seconds=max(0.0, (min(waiting) - now).total_seconds()) if waiting else None,
        )

    def _in_state(self, queue: str, state: RowState) -> list[Record]:
        return [r for r in self._store.records if r.row.queue == queue and _state_of(r) is state]


def _state_of(record: Record) -> RowState:
    if record.dead is not None:
        return RowState.PARKED
    if record.token is not None:
        return RowState.LEASED
    if record.next_attempt_at is None:
        return RowState.READY
    if record.is_due(utc_now()):
        return RowState.DUE
    return RowState.TIMER if record.row.last_attempt_at is None else RowState.RETRY
