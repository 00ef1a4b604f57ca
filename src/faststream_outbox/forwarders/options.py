"""What can be said of a forwarder: each option once, with its type and its meaning."""

from tenacity.stop import stop_base
from tenacity.wait import wait_base
from typing_extensions import TypedDict

from faststream_outbox.retry import RetryStrategy


class ForwarderOptions(TypedDict, total=False):
    """Options of ``broker.forwarder(queues, to=..., ...)``."""

    name: str | None
    """A stable name for logs. Default: kind and address of the destination, as in ``kafka:orders.v1``."""

    batch_size: int
    """The most rows of one hand-over. Default: 500."""

    lanes: int
    """Hand-overs in parallel, at most 16 for each queue over all processes. Default: 2."""

    send_timeout: float | None
    """Seconds after which a hand-over is given up and its rows are sent again later. Default: just above the
    destination client's own time-out, so that an abandoned send is dead before its row is sent again."""

    retry_strategy: RetryStrategy | tuple[wait_base, stop_base] | None
    """When a row that the destination refused is sent again; outages do not count. Default: ``ExponentialRetry()``."""

    min_fetch_interval: float
    """Seconds until the first look without a wake-up. Default: 1.0."""

    max_fetch_interval: float
    """Seconds at which the interval stops growing while nothing is found. Default: 10.0."""
