"""An address where messages arrive, and what a test needs to know of it."""

import asyncio
import string
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, NamedTuple, Self

from integration.broker.observing import eventually
from integration.faults.proxy import TcpProxy

from .received import Received

TEXT = string.printable + "äß€😀\u2028\x7f\x01"
SECONDS_TO_READ = 600.0
"""Of all there is; the test's own time limit comes first. A million messages take a while."""


class Shut(NamedTuple):
    """An address that refuses what is sent there."""

    address: str
    open: Callable[[], Awaitable["Box"]]
    """Let it take messages from now on, and give what they arrive in."""


class Box(ABC):
    """An address for one test alone.

    Args:
        server: one of `integration.servers`.
        name: of the address.
        proxy: stands before the server.
    """

    kind: ClassVar[str]
    server_fixture: ClassVar[str | None]
    """Where a test gets its server; None: it has none."""
    is_server: ClassVar[bool] = True
    is_main: ClassVar[bool] = True
    """Whether it stands for its kind in tests that are about the server and not about the address."""
    shares_connections: ClassVar[bool] = False
    """Whether a forwarder uses the connection of the publisher's broker, if it has one."""
    adds_headers: ClassVar[frozenset[str]] = frozenset()
    """What every message has beside what the row brings along."""
    header_names: ClassVar[str] = TEXT
    header_values: ClassVar[str] = TEXT
    """Letters that headers can be made of."""
    too_large: ClassVar[bytes | None] = None
    """A body that it never takes."""
    has_message_id: ClassVar[bool] = False
    """Whether its message ids are the idempotency keys."""
    drops_repeats: ClassVar[bool] = False
    """Whether the server itself keeps the first of each idempotency key only."""
    longest_body: ClassVar[int] = 50_000
    """Bytes: several segments of the network, or frames."""
    can_refuse: ClassVar[bool] = False
    """Whether it has ``options_that_refuse``."""
    can_be_shut: ClassVar[bool] = False
    """Whether it has ``shut``: the server itself refuses what is sent to an address that is not there."""
    impatient: ClassVar[dict[str, Any]] = {}
    """Options of its FastStream broker that let a forwarder have a ``send_timeout`` of a second."""
    patient: ClassVar[dict[str, Any]] = {}
    """Options of its FastStream broker that make it wait a minute for answers."""

    def __init__(self, server: Any, name: str, proxy: TcpProxy | None = None) -> None:
        self.server = server
        self.name = name
        self.address = name
        """What ``Forward(to=...)`` calls it."""
        self._proxy = proxy

    @classmethod
    @abstractmethod
    def open(cls, server: Any) -> AbstractAsyncContextManager[Self]:
        """Return a box on a server, with a proxy before it."""

    @classmethod
    @abstractmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        """A publisher of a FastStream broker of its own, which nobody has connected."""

    @abstractmethod
    async def read(self) -> list[Received]:
        """All that is there, in the order of each place."""

    def subscribe(self, broker: Any, handler: Callable[..., Any]) -> None:
        """Let a FastStream broker hand everything here to a handler."""
        raise NotImplementedError

    def options_that_refuse(self, key: str, times: int) -> dict[str, Any]:
        """Options of a FastStream broker by which it refuses a key so many times."""
        raise NotImplementedError

    def beside(self) -> AbstractAsyncContextManager[Self]:
        """Make another one that this one's publisher can send to."""
        raise NotImplementedError

    def shut(self) -> AbstractAsyncContextManager["Shut"]:
        """Make an address beside this one that refuses every row until it is opened."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Of the server, as direct clients use it."""
        return str(self.server.url)

    @property
    def proxy(self) -> TcpProxy:
        assert self._proxy is not None
        return self._proxy

    @property
    def proxied_url(self) -> str:
        """Of the server, for clients that shall meet the proxy."""
        return self.proxy.address

    @property
    def port(self) -> int:
        """Of the server, as direct clients use it."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def publisher(self, **options: Any) -> Any:
        return self.publisher_at(self.url, self.name, **options)

    def proxied_publisher(self, **options: Any) -> Any:
        return self.publisher_at(self.proxied_url, self.name, **options)

    async def restart(self) -> None:
        """Stop the server cleanly and start it again, while this loop goes on to serve the proxy."""
        await asyncio.to_thread(self.server.stop)
        await asyncio.to_thread(self.server.start)

    async def received(self, expected: int, *, within: float = 15.0) -> list[Received]:
        """All messages, once they are as many as expected, and whatever else is there: a repeat is one too many."""
        messages: list[Received] = []

        async def are_there() -> bool:
            messages[:] = await self.read()
            return len(messages) >= expected

        await eventually(are_there, within=within)
        return messages

    async def bodies(self, expected: int) -> list[bytes]:
        """The bodies of all messages, those of others too."""
        return [message.body for message in await self.received(expected)]
