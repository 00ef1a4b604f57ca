"""The outbox that a page is about."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from faststream_outbox.admin.admin import OutboxAdmin


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

    @property
    def admin(self) -> OutboxAdmin:
        """The admin API. A test broker exchanges it, so it is asked for each time."""
        return self._broker if isinstance(self._broker, OutboxAdmin) else self._broker.admin

    @property
    def forwarders(self) -> Sequence[Forwarder]:
        """Forwarders of this process."""
        return () if isinstance(self._broker, OutboxAdmin) else self._broker.forwarders

    async def statuses(self) -> Sequence[Any]:
        """Return the status of each forwarder of this process."""
        return [await forwarder.status() for forwarder in self.forwarders]


Endpoint = Callable[..., Any]
