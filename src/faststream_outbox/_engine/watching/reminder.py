"""Says again what is still down, with what waits for it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faststream_outbox._engine.health import Health, in_words
from faststream_outbox._engine.service import Service
from faststream_outbox._store.protocol import Lag

TICK_SECONDS = 5.0
"""How often it is asked whether a reminder is due; nothing but this process is asked."""

MOST_COUNTED = 1000
"""Rows of a shard that are counted for a line in the log: how many more there are is not worth the time."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Watched:
    """Something of which the log is reminded while it is down."""

    health: Health
    lag: Callable[[], Awaitable[Lag]] | None = None
    """Asks how much waits for it."""
    is_wanted: Callable[[], bool] = lambda: True
    """Whether anybody is trying to use it now; if not, that it is down is no news."""


class Reminder(Service):
    """Reminds the log of outages that last: after a minute, two more, four more, up to an hour each.

    Args:
        health: The database's. While it is down nothing is asked of it.
    """

    def __init__(self, health: Health) -> None:
        super().__init__("outbox-reminder", health)
        self._watched: dict[Watched, None] = {}

    def watch(self, watched: Watched) -> None:
        """Look after one more thing."""
        self._watched[watched] = None

    def forget(self, watched: Watched) -> None:
        """Look after it no longer; any number of times."""
        self._watched.pop(watched, None)

    async def run_once(self) -> None:
        await self.sleep(TICK_SECONDS)
        for watched in list(self._watched):
            if watched.health.is_reminder_due and watched.is_wanted() and not self.is_stopping:
                watched.health.remind(await self._details(watched))

    async def _details(self, watched: Watched) -> str:
        if watched.lag is None or self.health.is_down:
            return ""
        try:
            lag = await watched.lag()
        except Exception:  # noqa: BLE001 - what is wrong with the database is said by those who need it
            return ""
        return describe_lag(lag)


def describe_lag(lag: Lag) -> str:
    """Return in words how much waits, and for how long."""
    if not lag.rows:
        return "no row waits for it"
    count = f"{lag.rows:,}" if lag.rows < MOST_COUNTED else f"at least {lag.rows:,}"
    rows = f"{count} row waits" if lag.rows == 1 else f"{count} rows wait, the first"
    return f"{rows} for {in_words(lag.seconds)}"
