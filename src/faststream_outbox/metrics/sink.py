"""Where values go."""

from collections.abc import Sequence
from typing import Protocol

from faststream_outbox.metrics.instruments import Instrument


class Sink(Protocol):
    """Takes what is measured, as Prometheus or OpenTelemetry wants it."""

    def add(self, instrument: Instrument, labels: Sequence[str], amount: int) -> None:
        """Add to a counter. The first label is the outbox, the others are those of the instrument, in their order."""

    def observe(self, instrument: Instrument, labels: Sequence[str], values: Sequence[float]) -> None:
        """Enter values into a histogram."""
