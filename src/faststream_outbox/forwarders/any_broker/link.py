"""The connection of a FastStream broker, which all lanes that send through it share."""

import asyncio
from typing import ClassVar
from weakref import WeakValueDictionary

from faststream_outbox._engine.service import stop_tasks
from faststream_outbox._faststream import forget_connection, is_connected
from faststream_outbox.forwarders.any_broker.outlet import Outlet
from faststream_outbox.forwarders.any_broker.turns import Turns

CONNECT_SECONDS = 3.0
PING_SECONDS = 1.0
CLOSE_SECONDS = 1.0


class Link:
    """Connects a broker and starts none of its subscribers; closes only what it has connected.

    Made by ``to``, once for each broker.
    """

    _links: ClassVar[WeakValueDictionary[int, "Link"]] = WeakValueDictionary()
    """By the broker's id, which is its own for as long as its link holds it."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._users: set[int] = set()
        self.turns = Turns()
        """Of its users."""
        self._changing = asyncio.Lock()
        self._connecting: asyncio.Task[None] | None = None
        self._is_ready = False
        self._is_ours = False

    @classmethod
    def to(cls, outlet: Outlet) -> "Link":
        """Return the link to the broker of an outlet."""
        return cls._links.setdefault(id(outlet.broker), cls(outlet))

    @property
    def is_ready(self) -> bool:
        """Whether nothing was wrong since the broker has answered, as far as that shows on this side."""
        return self._is_ready and is_connected(self._outlet.broker)

    async def connect(self, user: int) -> None:
        """Connect the broker, and raise unless it answers; cheap while nothing was wrong.

        Args:
            user: The id of the user, which will ``leave`` it again.

        Raises:
            ConnectionError: It does not answer.
            Exception: What its client raises.
        """
        self._users.add(user)
        if self.is_ready:
            return
        async with self._changing:
            self._is_ready = False
            if not is_connected(self._outlet.broker):
                await self._open()
            if not await self._outlet.broker.ping(PING_SECONDS):
                # Clients give up reconnecting after a while; a fresh one begins anew.
                await self._close(cut=True)
                msg = f"{self._outlet.kind}: the broker does not answer"
                raise ConnectionError(msg)
            self._is_ready = True

    async def _open(self) -> None:
        # Some clients try for ever, and leave a socket behind when they are cancelled: they go on between calls.
        self._is_ours = True
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name=f"outbox-connect-{self._outlet.kind}")
        connecting = self._connecting
        await asyncio.wait([connecting], timeout=CONNECT_SECONDS)
        if not connecting.done():
            msg = f"{self._outlet.kind}: no connection yet after {CONNECT_SECONDS:g} s"
            raise ConnectionError(msg)
        self._connecting = None
        await connecting

    async def _connect(self) -> None:
        await self._outlet.broker.connect()

    def doubt(self) -> None:
        """Look again before the next hand-over."""
        self._is_ready = False

    async def cut(self) -> None:
        """Throw away what is not sent yet, if the connection is ours: its hand-over was given up."""
        self._is_ready = False
        async with self._changing:
            await self._close(cut=True)

    async def leave(self, user: int) -> None:
        """Close what was opened, when no user needs it any more."""
        self._users.discard(user)
        if self._users:
            return
        async with self._changing:
            await self._close(cut=False)

    async def _close(self, *, cut: bool) -> None:
        self._is_ready = False
        if self._connecting is not None:
            connecting, self._connecting = self._connecting, None
            # Let it come to an end by itself if it will: cancelled, some clients leave a socket behind.
            await stop_tasks([connecting], CLOSE_SECONDS)
            if connecting.done() and not connecting.cancelled():
                connecting.exception()
        broker = self._outlet.broker
        # If the application has started it meanwhile, the application will stop it.
        is_ours, self._is_ours = self._is_ours and not broker.running, False
        if not is_ours or not is_connected(broker):
            return
        if cut or not await self._stop(cut=False):
            await self._stop(cut=True)
        forget_connection(broker)

    async def _stop(self, *, cut: bool) -> bool:
        """Stop the broker, and tell whether that went well. Whatever its client says: it is not used again."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._outlet.stop(cut=cut)
        except Exception:  # noqa: BLE001 - each client has its own
            return False
        return True
