"""The outbox's metrics for OpenTelemetry."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation, get_meter
from typing_extensions import override

from faststream_outbox._engine.meter import Meter as EngineMeter
from faststream_outbox.metrics.instruments import ALL, Instrument, Kind
from faststream_outbox.metrics.metrics import DEFAULT_MOST_QUEUES, DEFAULT_REFRESH_SECONDS, Metrics
from faststream_outbox.metrics.recorder import Names
from faststream_outbox.opentelemetry.standard import StandardMetrics, StandardRecorder

OUTBOX = "outbox.name"

COLLECTION_SECONDS = 0.1
"""Gauges that are asked for within so long are of one collection."""


class OutboxMetrics(Metrics):
    """Tells OpenTelemetry what an outbox does: ``OutboxBroker(..., metrics=OutboxMetrics())``.

    The instruments are those of Prometheus, as in ``outbox.commit_to_ack`` with the unit ``s``, and the four of the
    semantic conventions for messaging, as in ``messaging.process.duration``. See ``docs/observing.md``.

    Args:
        meter_provider: Default: the application's, as ``opentelemetry.metrics.set_meter_provider`` has set it.
        refresh_seconds: Between two looks at the tables.
        most_queues: Queues that have an attribute of their own. Counts of all others have ``other``.

    Raises:
        ConfigError: A number cannot be.

    Example::

        broker = OutboxBroker(engine, outbox_table=outbox_table, metrics=OutboxMetrics())
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        refresh_seconds: float = DEFAULT_REFRESH_SECONDS,
        most_queues: int = DEFAULT_MOST_QUEUES,
    ) -> None:
        meter = get_meter("faststream_outbox", meter_provider=meter_provider)
        super().__init__(_TelemetrySink(meter), refresh_seconds=refresh_seconds, most_queues=most_queues)
        self._standard = StandardMetrics(meter)
        gauges = _Gauges(self)
        for each in ALL:
            if each.kind is Kind.GAUGE:
                meter.create_observable_gauge(each.dotted, [partial(gauges.read, each)], each.unit, each.text)

    @override
    def meter(self, table: str) -> EngineMeter:
        return StandardRecorder(self.name_of(table), self._sink, Names(self.most_queues), self._standard)


class _TelemetrySink:
    """Counters and histograms of OpenTelemetry."""

    def __init__(self, meter: Meter) -> None:
        self._counters: dict[Instrument, Counter] = {}
        self._histograms: dict[Instrument, Histogram] = {}
        self._attributes: dict[tuple[Instrument, Sequence[str]], dict[str, str]] = {}
        for each in ALL:
            if each.kind is Kind.COUNTER:
                self._counters[each] = meter.create_counter(each.dotted, each.unit, each.text)
            elif each.kind is Kind.HISTOGRAM:
                self._histograms[each] = meter.create_histogram(
                    each.dotted, each.unit, each.text, explicit_bucket_boundaries_advisory=each.bounds
                )

    def add(self, instrument: Instrument, labels: Sequence[str], amount: int) -> None:
        self._counters[instrument].add(amount, self._named(instrument, labels))

    def observe(self, instrument: Instrument, labels: Sequence[str], values: Sequence[float]) -> None:
        attributes = self._named(instrument, labels)
        record = self._histograms[instrument].record
        for value in values:
            record(value, attributes)

    def _named(self, instrument: Instrument, labels: Sequence[str]) -> dict[str, str]:
        named = self._attributes.get((instrument, labels))
        if named is None:
            named = self._attributes[instrument, labels] = attributes_of(instrument, labels)
        return named


class _Gauges:
    """Reads all gauges once for a collection, which asks for one after the other."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._values: Mapping[Instrument, Sequence[Observation]] = {}
        self._until = -math.inf

    def read(self, wanted: Instrument, _options: CallbackOptions) -> Iterable[Observation]:
        """Return the values of one gauge."""
        if time.monotonic() >= self._until:
            values: defaultdict[Instrument, list[Observation]] = defaultdict(list)
            for instrument, labels, value in self._metrics.readings():
                values[instrument].append(Observation(value, attributes_of(instrument, labels)))
            self._values, self._until = values, time.monotonic() + COLLECTION_SECONDS
        return self._values.get(wanted, ())


def attributes_of(instrument: Instrument, labels: Sequence[str]) -> dict[str, Any]:
    """Return labels with their names, as OpenTelemetry's attributes."""
    names = (OUTBOX, *(f"outbox.{name}" for name in instrument.labels))
    return dict(zip(names, labels, strict=True))
