"""The metrics of one or several brokers, without the form in which they are shown."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from itertools import count
from typing import Any, Self

from faststream_outbox._engine.meter import Meter
from faststream_outbox.checks import MIN_SECONDS, require_count, require_seconds
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.metrics.gauges import GaugeValue, Source
from faststream_outbox.metrics.recorder import InboxRecorder, Names, Recorder
from faststream_outbox.metrics.sink import Sink

DEFAULT_REFRESH_SECONDS = 15.0
DEFAULT_MOST_QUEUES = 100

ATTEMPTS = 5
"""To read gauges in a thread beside the loops."""


class Metrics:
    """What brokers are given as ``metrics=``; made by ``faststream_outbox.prometheus`` or ``.opentelemetry``.

    Args:
        sink: Takes counts and durations.
        refresh_seconds: Between two looks at the tables.
        most_queues: Queues that have a label of their own. Counts of all others have ``other``.

    Raises:
        ConfigError: A number cannot be.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        refresh_seconds: float = DEFAULT_REFRESH_SECONDS,
        most_queues: int = DEFAULT_MOST_QUEUES,
    ) -> None:
        self._sink = sink
        self.refresh_seconds = require_seconds("refresh_seconds", refresh_seconds, at_least=MIN_SECONDS)
        self.most_queues = require_count("most_queues", most_queues)
        self._sources: list[Source] = []
        self._outbox: str | None = None

    def named(self, outbox: str) -> Self:
        """Return the same metrics for a broker whose series have this name in the label ``outbox``.

        By default that is the table's name. Tables of several tenants, which are all called the same, need this.

        Raises:
            ConfigError: The name is empty.
        """
        if not outbox:
            msg = "outbox: must not be empty"
            raise ConfigError(msg)
        other = copy(self)
        other._outbox = outbox  # noqa: SLF001 - it is of this class
        return other

    def name_of(self, table: str) -> str:
        """Return the label ``outbox`` of a broker with this table."""
        return self._outbox or table

    def meter(self, table: str) -> Meter:
        """Return the meter of a broker with this table."""
        return Recorder(self.name_of(table), self._sink, Names(self.most_queues))

    def inbox_meter(self, table: str, consumer: str) -> Callable[[bool], None]:
        """Return what an inbox tells of each message: whether it was the first of its kind.

        Args:
            table: The inbox table's name.
            consumer: Whose inbox it is.
        """
        recorder = InboxRecorder(self.name_of(table), consumer, self._sink)
        return recorder.came

    def watch(self, source: Source) -> Source:
        """Show the gauges of a broker, until ``forget`` of what is returned.

        Of two brokers with one name, the second is shown with a number, as ``outbox#2``: nobody may read a gauge twice.
        """
        names = {each.outbox for each in self._sources}
        numbered = (f"{source.outbox}#{number}" for number in count(2))
        name = source.outbox if source.outbox not in names else next(each for each in numbered if each not in names)
        shown = replace(source, outbox=name)
        self._sources.append(shown)
        return shown

    def forget(self, source: Source) -> None:
        """Show the gauges of a broker no longer; any number of times."""
        if source in self._sources:
            self._sources.remove(source)

    def readings(self) -> Iterator[GaugeValue]:
        """Yield the values of all gauges of all brokers, in any thread; the first label is the outbox."""
        for source in [*self._sources]:
            for instrument, labels, value in _read(source):
                yield GaugeValue(instrument, (source.outbox, *labels), float(value))


def check_metrics(metrics: Any) -> Metrics | None:
    """Return the metrics that were asked for; raise a ConfigError for what is none."""
    if metrics is None or isinstance(metrics, Metrics):
        return metrics
    msg = (
        f"metrics: must be OutboxMetrics(...) of faststream_outbox.prometheus or faststream_outbox.opentelemetry, got "
        f"{type(metrics).__name__}"
    )
    raise ConfigError(msg)


def _read(source: Source) -> Sequence[GaugeValue]:
    """Return the values of a broker's gauges; none where they cannot be read, for the sake of the others."""
    for _ in range(ATTEMPTS):
        # The loops go on meanwhile where this is another thread, and a set may change while it is read.
        with suppress(RuntimeError):
            return [*source.readings()]
    return ()
