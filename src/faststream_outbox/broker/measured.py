"""What a broker has of its metrics."""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.storage import Storage
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.metrics.gauges import Source
from faststream_outbox.metrics.looker import Looker
from faststream_outbox.metrics.metrics import Metrics


class Measured:
    """Shows the gauges of a broker while its loops run.

    Args:
        metrics: Where they are shown; None measures nothing.
        table: The outbox table's name.
    """

    def __init__(self, metrics: Metrics | None, table: str) -> None:
        self._metrics = metrics
        self._table = table
        self.meter: Meter = NO_METER if metrics is None else metrics.meter(table)
        """What loops and publishers tell what happens."""
        self._source: Source | None = None

    def start(
        self,
        runtime: Runtime,
        storage: Storage,
        forwarders: Callable[[], Sequence[OutboxForwarder]],
        engine: AsyncEngine,
    ) -> None:
        """Begin to look at the tables, and to show all gauges."""
        metrics = self._metrics
        if metrics is None:
            return
        looker = Looker(
            storage.store,
            storage.onlooker,
            storage.examiner,
            runtime.log,
            interval=metrics.refresh_seconds,
            most_queues=metrics.most_queues,
        )
        source = Source(
            outbox=metrics.name_of(self._table),
            runtime=runtime,
            forwarders=forwarders,
            pool=engine.pool,
            looker=looker,
        )
        self._source = metrics.watch(source)
        looker.start()

    async def stop(self) -> None:
        """End that; any number of times."""
        source, self._source = self._source, None
        if self._metrics is not None and source is not None:
            self._metrics.forget(source)
            await source.looker.stop()
