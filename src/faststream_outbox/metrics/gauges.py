"""What is true now: read when somebody asks, without waiting for anything."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._values.figures import QueueFigures, RowState
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.status import ForwarderState
from faststream_outbox.metrics import instruments as of
from faststream_outbox.metrics.instruments import Instrument
from faststream_outbox.metrics.looker import LIMIT_SECONDS, Looker

MOVED = "moved"
"""Stands beside the states of rows: dead letters in the dead-letter table."""


class GaugeValue(NamedTuple):
    """The value of a gauge."""

    instrument: Instrument
    labels: Sequence[str]
    """Those of the instrument, in their order."""
    value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A broker whose loops run."""

    outbox: str
    """Its name, the first label of all."""
    runtime: Runtime
    forwarders: Callable[[], Sequence[OutboxForwarder]]
    pool: Any
    """SQLAlchemy's, of the broker's engine."""
    looker: Looker

    def readings(self) -> Iterator[GaugeValue]:
        """Yield the values of all gauges."""
        yield from _of_process(self.runtime)
        yield from _of_pool(self.pool)
        for forwarder in self.forwarders():
            if forwarder.has_name:
                yield from _of_forwarder(forwarder)
        yield from _of_looks(self.looker)


def _of_process(runtime: Runtime) -> Iterator[GaugeValue]:
    yield GaugeValue(of.DATABASE_UP, (), not runtime.health.is_down)
    yield GaugeValue(of.PRESENT, (), runtime.hears)
    yield GaugeValue(of.STALLED, (), len(runtime.stalled))
    yield GaugeValue(of.LEASES, (), len(runtime.leases))
    yield GaugeValue(of.SET_ASIDE, (), runtime.set_aside)
    if (most := runtime.store.most_connections) is not None:
        yield GaugeValue(of.POOL_LIMIT, (), most)


def _of_pool(pool: Any) -> Iterator[GaugeValue]:
    # NullPool counts nothing.
    if hasattr(pool, "checkedout") and hasattr(pool, "checkedin"):
        yield GaugeValue(of.POOL, ("in_use",), pool.checkedout())
        yield GaugeValue(of.POOL, ("idle",), pool.checkedin())


def _of_forwarder(forwarder: OutboxForwarder) -> Iterator[GaugeValue]:
    name, now = forwarder.name, forwarder.state
    for state in ForwarderState:
        yield GaugeValue(of.FORWARDER_STATE, (name, state), state is now)
    yield GaugeValue(of.PARTS_DOWN, (name,), forwarder.parts_down)
    yield GaugeValue(of.FORWARDER_SET_ASIDE, (name,), forwarder.set_aside)
    yield GaugeValue(of.MAYBE_REPEATED, (name,), forwarder.maybe_repeated)
    yield GaugeValue(of.MAYBE_LOST, (name,), forwarder.maybe_lost)


def _of_looks(looker: Looker) -> Iterator[GaugeValue]:
    seen = looker.seen
    age = time.monotonic() - seen.at
    if age < 3 * looker.interval + LIMIT_SECONDS:
        yield GaugeValue(of.LOOK_AGE_SECONDS, (), age)
        for figures in seen.queues:
            yield from _of_queue(figures)
    for table in seen.tables:
        yield GaugeValue(of.TABLE_ROWS, (table.table,), max(0, table.estimated_rows))
        yield GaugeValue(of.TABLE_DEAD_ROWS, (table.table,), table.dead_rows)
        yield GaugeValue(of.TABLE_BYTES, (table.table,), table.table_bytes)
        yield GaugeValue(of.INDEX_BYTES, (table.table,), table.index_bytes)
    if seen.snapshots is not None:
        oldest = max((each.seconds or 0.0 for each in seen.snapshots), default=0.0)
        yield GaugeValue(of.SNAPSHOT_SECONDS, (), oldest)


def _of_queue(figures: QueueFigures) -> Iterator[GaugeValue]:
    counts = {
        RowState.READY: figures.ready,
        RowState.DUE: figures.due,
        RowState.TIMER: figures.timers,
        RowState.RETRY: figures.retries,
        RowState.LEASED: figures.leased,
        RowState.PARKED: figures.parked,
        MOVED: figures.moved,
    }
    for state, count in counts.items():
        yield GaugeValue(of.ROWS_WAITING, (figures.queue, state), count.rows)
    yield GaugeValue(of.OLDEST_SECONDS, (figures.queue,), figures.oldest_seconds or 0.0)
    yield GaugeValue(of.LEASES_RUN_OUT, (figures.queue,), figures.leases_run_out)
