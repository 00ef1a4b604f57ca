"""Values that are entered together are those that prometheus-client would have entered one by one."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from faststream_outbox.metrics.instruments import SLOW
from faststream_outbox.prometheus.metrics import observe_many

VALUES = st.lists(st.floats(min_value=0, max_value=1e6) | st.sampled_from(SLOW), min_size=1)


def pages_of(values: list[float], *, has_private_names: bool = True) -> tuple[str, str]:
    pages = []
    for together in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("a", "b", ["c"], buckets=SLOW, registry=registry).labels("d")
        if together:
            child = histogram if has_private_names else type("Child", (), {"observe": histogram.observe})
            observe_many(child, SLOW, values)
        else:
            # Its sum is that of the values in their order.
            for value in values:
                histogram.observe(value)
        page = generate_latest(registry).decode()
        pages.append("\n".join(line for line in page.splitlines() if "_created" not in line))
    return pages[0], pages[1]


@given(VALUES)
def test_together_as_one_by_one(values: list[float]) -> None:
    together, single = (page.splitlines() for page in pages_of(values))
    for ours, theirs in zip(together, single, strict=True):
        if ours.startswith("a_sum"):
            assert math.isclose(float(ours.split()[-1]), float(theirs.split()[-1]))
        else:
            assert ours == theirs


def test_without_private_names() -> None:
    together, single = pages_of([0.1, 5.0, 1e9], has_private_names=False)
    assert together == single
