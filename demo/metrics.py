"""How forwarders are doing, in the text format that Prometheus reads."""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from faststream_outbox import ForwarderState, ForwarderStatus

GAUGES = {
    "lag_rows": "Rows that could be sent now.",
    "lag_seconds": "For how long the first of them could have been sent.",
}
COUNTERS = {
    "sent": "Messages that the destination accepted.",
    "refused": "Attempts that the destination refused.",
    "dead": "Messages that became dead letters.",
    "dropped": "Messages that a transform left out.",
}


def in_text_format(statuses: Iterable[ForwarderStatus]) -> bytes:
    """Return what a scrape of these forwarders answers."""
    registry = CollectorRegistry()
    registry.register(_Statuses(list(statuses)))
    return generate_latest(registry)


class _Statuses(Collector):
    def __init__(self, statuses: Sequence[ForwarderStatus]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        for name, text in GAUGES.items():
            yield self._filled(GaugeMetricFamily(f"outbox_forwarder_{name}", text, labels=["forwarder"]), name)
        for name, text in COUNTERS.items():
            yield self._filled(CounterMetricFamily(f"outbox_forwarder_{name}", text, labels=["forwarder"]), name)
        state = GaugeMetricFamily("outbox_forwarder_state", "1 for the state it is in.", labels=["forwarder", "state"])
        for status in self._statuses:
            for each in ForwarderState:
                state.add_metric([status.name, each.value], status.state is each)
        yield state

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, name: str) -> Metric:
        for status in self._statuses:
            value = getattr(status, name)
            if value is not None:  # it has stopped
                family.add_metric([status.name], value)
        return family
