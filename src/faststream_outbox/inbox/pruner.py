"""Deletes entries that no copy can meet any more, now and then."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from typing_extensions import override

from faststream_outbox._engine.health import Health, guarded
from faststream_outbox._engine.service import Service
from faststream_outbox.exceptions import ConfigError

LOGGER = logging.getLogger("faststream_outbox")

LONGEST_COPY = timedelta(days=7)
"""How long after a message its last copy may come, where nobody says. A forwarder with the default retry strategy gives
a message up nine minutes after its first failure, and an outage counts no attempt. So this is the longest outage of the
destination, the database or the relay, and the time that copies wait at the broker until the consumer takes them."""

MAX_SPAN = timedelta(days=3650)


class Pruner(Service):
    """Runs one consumer's pruning.

    Args:
        consumer: Whose entries.
        prune: Deletes what is too old, and returns how many entries that were.
        every: From the end of one pass to the beginning of the next.
    """

    def __init__(self, consumer: str, prune: Callable[[], Awaitable[int]], *, every: timedelta) -> None:
        self._consumer = consumer
        super().__init__(f"inbox-pruner-{consumer}", Health(f"pruning of inbox {consumer!r}", guarded(_log)))
        self._prune = prune
        self._every = every

    def warn_of_short_retention(self, older_than: timedelta, longest_copy: timedelta) -> None:
        """Write a WARNING if copies may come after their entries are gone."""
        if older_than < longest_copy:
            guarded(_log)(
                logging.WARNING,
                f"inbox {self._consumer!r}: entries are kept for {older_than}, and a copy may come up to "
                f"{longest_copy} after its message: it would be handled again. Keep entries longer, or give the "
                "longest_copy that is true here (docs/inbox.md, Retention)",
                None,
            )

    @override
    async def run_once(self) -> None:
        """Prune, then sleep until it is time again."""
        pruned = await self._prune()
        self.health.recovered(self.name)
        if pruned:
            guarded(_log)(logging.INFO, f"inbox {self._consumer!r}: {pruned} entries were deleted", None)
        await self.sleep(self._every.total_seconds())


def check_span(argument: str, span: Any) -> None:
    """Refuse what is no span of time.

    Raises:
        ConfigError: It is no timedelta, not above zero, or longer than ten years.
    """
    if not isinstance(span, timedelta) or not timedelta(0) < span <= MAX_SPAN:
        msg = f"{argument}: must be a timedelta above 0 and of {MAX_SPAN.days} days at most, got {span!r}"
        raise ConfigError(msg)


def _log(level: int, message: str, error: BaseException | None) -> None:
    LOGGER.log(level, message, exc_info=error if level >= logging.ERROR else None)
