"""The outbox that a page is about."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

from faststream_outbox.admin.admin import OutboxAdmin

FRESH_SECONDS = 2.0
"""Several people who look at once share a look."""

STATUS_SECONDS = 3.0


class Forwarder(Protocol):
    """What a page asks of a forwarder of this process."""

    @property
    def name(self) -> str:
        """Its stable name."""

    @property
    def queues(self) -> Sequence[str]:
        """What it takes rows from."""

    async def status(self) -> Any:
        """Return its state, as ``ForwarderStatus``."""


class Administered(Protocol):
    """What has an admin API: an ``OutboxBroker``."""

    @property
    def admin(self) -> OutboxAdmin:
        """Figures, dead letters and pauses."""

    @property
    def forwarders(self) -> Sequence[Forwarder]:
        """Forwarders of this process."""


class Subject:
    """One outbox, with a broker in this process or without.

    Args:
        broker: An ``OutboxBroker``, or what ``make_admin`` returns.
    """

    def __init__(self, broker: Administered | OutboxAdmin) -> None:
        self._broker = broker
        self._last: tuple[float, Sequence[tuple[str, Any]]] | None = None
        self._lock = asyncio.Lock()

    @property
    def admin(self) -> OutboxAdmin:
        """The admin API. A test broker exchanges it, so it is asked for each time."""
        return self._broker if isinstance(self._broker, OutboxAdmin) else self._broker.admin

    @property
    def forwarders(self) -> Sequence[Forwarder]:
        """Forwarders of this process."""
        return () if isinstance(self._broker, OutboxAdmin) else self._broker.forwarders

    async def statuses(self) -> Sequence[tuple[str, Any]]:
        """Return each forwarder of this process by its name with its status, as it was at most two seconds ago.

        The status is None where it cannot be had in time: it asks the database.
        """
        async with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_SECONDS:
                self._last = time.monotonic(), await asyncio.gather(*map(_status, self.forwarders))
            return self._last[1]


async def _status(forwarder: Forwarder) -> tuple[str, Any]:
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            return forwarder.name, await forwarder.status()
    except Exception:  # noqa: BLE001 - the page says what is wrong with the database elsewhere
        return forwarder.name, None
