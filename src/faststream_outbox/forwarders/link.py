"""The connection of a destination's broker, shared by all forwarders that send through it."""

import asyncio
import contextlib
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from faststream_outbox._faststream import BrokerUsecase, is_connected

CLOSE_SECONDS = 10.0
"""A client whose server is gone may wait for it when it closes; nobody waits for that longer."""


class Link:
    """Connects a FastStream broker when it is first needed, and closes it only if nobody else had opened it.

    Get one with ``Link.to(broker)``, so that forwarders through one broker share one.
    """

    _links: ClassVar["WeakKeyDictionary[BrokerUsecase[Any, Any, Any], Link]"] = WeakKeyDictionary()

    def __init__(self, broker: BrokerUsecase[Any, Any, Any]) -> None:
        self._broker = broker
        self._connecting = asyncio.Lock()
        self._is_ours = False

    @classmethod
    def to(cls, broker: BrokerUsecase[Any, Any, Any]) -> "Link":
        """Give the one link of a broker."""
        return cls._links.setdefault(broker, cls(broker))

    @property
    def is_open(self) -> bool:
        return is_connected(self._broker)

    async def open(self) -> None:
        """Connect, unless it is connected; raise what the client raises."""
        if self.is_open:
            return
        async with self._connecting:
            if not self.is_open:
                await self._broker.connect()
                self._is_ours = True

    async def close(self) -> None:
        """Close what ``open`` opened, unless the application has started the broker for itself since."""
        if not self._is_ours:
            return
        self._is_ours = False
        if not self._broker.running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._broker.stop()
