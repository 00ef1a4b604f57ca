"""The metrics of a relay, as Prometheus reads them. They need the extra ``prometheus``."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from faststream_outbox.relay.http import Answer
from faststream_outbox.relay.problems import Problem, SettingsError
from faststream_outbox.relay.settings import RelaySettings

if TYPE_CHECKING:
    from faststream_outbox.metrics.metrics import Metrics

REFRESH_SECONDS = 15.0
"""Between two looks at the tables of a database; each takes a connection. With many databases they are rarer ..."""
REFRESH_SECONDS_EACH = 0.6
"""... by so much for each: those of 100 are looked at once a minute."""


class Scrape:
    """One registry for all databases of a process, which stand in the label ``outbox``.

    Args:
        count: How many databases there are.

    Raises:
        ImportError: prometheus-client is not installed.
    """

    def __init__(self, count: int) -> None:
        # Who wants no metrics need not have it.
        from prometheus_client import CollectorRegistry, ProcessCollector  # noqa: PLC0415
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest  # noqa: PLC0415

        from faststream_outbox.prometheus import OutboxMetrics  # noqa: PLC0415

        registry: Any = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.metrics: Metrics = OutboxMetrics(
            registry=registry, refresh_seconds=max(REFRESH_SECONDS, REFRESH_SECONDS_EACH * count)
        )
        self._shown: Callable[[], bytes] = lambda: generate_latest(registry)
        self._content_type = CONTENT_TYPE_PLAIN_0_0_4

    async def answer(self) -> Answer:
        """Return what a scrape gets; no database is asked."""
        return Answer(self._shown(), HTTPStatus.OK, self._content_type)


def make_scrape(settings: RelaySettings, file: str) -> Scrape | None:
    """Return the metrics, if the file wants some.

    Raises:
        SettingsError: It does, and prometheus-client is not installed.
    """
    if settings.http is None or not settings.http.metrics:
        return None
    try:
        return Scrape(len(settings.databases))
    except ImportError as error:
        text = "needs the extra 'prometheus' of this package: pip install '.[relay,prometheus]' in a checkout"
        raise SettingsError(file, [Problem("http.metrics", text)]) from error
