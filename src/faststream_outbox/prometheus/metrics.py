"""The outbox's metrics in a Prometheus registry."""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from faststream_outbox.metrics.instruments import ALL, Instrument, Kind
from faststream_outbox.metrics.metrics import DEFAULT_MOST_QUEUES, DEFAULT_REFRESH_SECONDS, Metrics

OUTBOX = "outbox"

MANY = 4
"""Values that are worth being entered together."""


class OutboxMetrics(Metrics):
    """Shows what an outbox does to Prometheus: ``OutboxBroker(..., metrics=OutboxMetrics())``.

    Counts and durations are kept in this process. What is in the tables is read every ``refresh_seconds``, so that a
    scrape waits for nothing. Series have no ids, keys or texts of errors as labels. See ``docs/observing.md``.

    Args:
        registry: Where to show it. Default: prometheus-client's own.
        refresh_seconds: Between two looks at the tables.
        most_queues: Queues that have a label of their own. Counts of all others have ``other``.

    Raises:
        ConfigError: A number cannot be.
        ValueError: prometheus-client's: the registry has such metrics already. Give one object to several brokers.

    Example::

        metrics = OutboxMetrics()
        broker = OutboxBroker(engine, outbox_table=outbox_table, metrics=metrics)
        app.mount("/metrics", prometheus_client.make_asgi_app())
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry = REGISTRY,
        refresh_seconds: float = DEFAULT_REFRESH_SECONDS,
        most_queues: int = DEFAULT_MOST_QUEUES,
    ) -> None:
        super().__init__(_PrometheusSink(registry), refresh_seconds=refresh_seconds, most_queues=most_queues)
        registry.register(_Gauges(self))


class _PrometheusSink:
    """Counters and histograms of prometheus-client."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters: dict[Instrument, Counter] = {}
        self._histograms: dict[Instrument, Histogram] = {}
        for each in ALL:
            names = (OUTBOX, *each.labels)
            if each.kind is Kind.COUNTER:
                self._counters[each] = Counter(each.name, each.text, names, registry=registry)
            elif each.kind is Kind.HISTOGRAM:
                self._histograms[each] = Histogram(
                    each.name, each.text, names, registry=registry, buckets=tuple(each.bounds)
                )

        self._children: dict[tuple[Instrument, Sequence[str]], Any] = {}
        """By their labels: prometheus-client takes a lock to find one."""

    def add(self, instrument: Instrument, labels: Sequence[str], amount: int) -> None:
        self._child(instrument, labels).inc(amount)

    def observe(self, instrument: Instrument, labels: Sequence[str], values: Sequence[float]) -> None:
        child = self._child(instrument, labels)
        if len(values) < MANY:
            for value in values:
                child.observe(value)
        else:
            observe_many(child, instrument.bounds, values)

    def _child(self, instrument: Instrument, labels: Sequence[str]) -> Any:
        child = self._children.get((instrument, labels))
        if child is None:
            family = self._counters.get(instrument) or self._histograms[instrument]
            child = self._children[instrument, labels] = family.labels(*labels)
        return child


def observe_many(child: Any, bounds: Sequence[float], values: Sequence[float]) -> None:
    """Enter many values into a histogram as ``observe`` does one by one, which costs microseconds for each.

    A hand-over has hundreds of them. prometheus-client has no public way, so this needs two of its private names. They
    are of its histograms since the first release; where they are missing, the slow way is taken.
    """
    try:
        buckets, total = child._buckets, child._sum  # noqa: SLF001 - see above
    except AttributeError:
        for value in values:
            child.observe(value)
        return
    total.inc(sum(values))
    for index, count in Counts(bisect_left(bounds, value) for value in values).items():
        buckets[index].inc(count)


class _Gauges(Collector):
    """Reads all gauges at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Return the gauges without values: prometheus-client finds names that are taken by this."""
        return self._families().values()

    @override
    def collect(self) -> Iterator[Metric]:
        families = self._families()
        for instrument, labels, value in self._metrics.readings():
            families[instrument].add_metric([*labels], value)
        yield from families.values()

    def _families(self) -> dict[Instrument, Any]:
        return {
            each: GaugeMetricFamily(each.name, each.text, labels=(OUTBOX, *each.labels))
            for each in ALL
            if each.kind is Kind.GAUGE
        }
