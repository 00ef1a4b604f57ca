"""Listens for new rows, and is this process's proof of life."""

import asyncio
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.token import Token
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._engine.watching.consumed import Consumed
from faststream_outbox._store.protocol import PRESENCE_PREFIX, Announcement, Listener, PausesChanged, Store

STEADY_SECONDS = 10.0
"""After the line was down: by then every other living process has its own back too, with all its backoff."""


class Receiver(Service):
    """Holds one connection open: wake-ups come in on it, and an advisory lock on it is the presence of the token.

    Args:
        store: Opens the line.
        token: Written once it is known whether this process can have a presence.
        wakeups: Rung for what is heard.
        health: The line's own: it can be down while all else works.
        log: Gets a line when the connection is silent.
        on_pauses: Called when somebody has paused or resumed something, or when that may have gone unheard.
        consumed: Gets what other processes announce, and whether all of it is heard.
        enabled: False: poll only, and let leases of a dead process run out.
    """

    def __init__(
        self,
        store: Store,
        token: Token,
        wakeups: Wakeups,
        health: Health,
        log: Log,
        *,
        on_pauses: Callable[[], None] = lambda: None,
        consumed: Consumed | None = None,
        enabled: bool,
    ) -> None:
        super().__init__("outbox-receiver", health)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"
        self._store = store
        self._token = token
        self._wakeups = wakeups
        self._log = log
        self._on_pauses = on_pauses
        self._consumed = consumed or Consumed(lambda: ())
        self._enabled = enabled
        self._steady_from = 0.0
        self._hears = False

    @property
    def hears(self) -> bool:
        """Whether what is committed now wakes this process."""
        return self._hears

    @property
    def is_enabled(self) -> bool:
        """Whether it listens, or tries to."""
        return self._enabled

    def is_steady(self) -> bool:
        """Return whether the line has been up for a while since it was last down."""
        return time.monotonic() >= self._steady_from

    async def stop(self, grace: float | None = 0.0) -> None:
        """Close the line at once: there is nothing on it to be finished."""
        await super().stop(0.0)

    async def run_once(self) -> None:
        if not self._enabled:
            self._decide(f"lease:{self._holder}")
            with self.resting():
                await self._stopping.wait()
            return
        try:
            await self._listen(f"{PRESENCE_PREFIX}{self._holder}")
        except Exception:
            self._steady_from = math.inf
            raise

    async def _listen(self, token: str) -> None:
        async with asyncio.timeout(DATABASE_SECONDS) as connecting, self._store.listen(token) as line:
            connecting.reschedule(None)
            if line is None:
                self._fall_back_to_polling()
                return
            self.health.recovered(self.name)
            if self._steady_from == math.inf:
                self._steady_from = time.monotonic() + STEADY_SECONDS
            self._decide(token)
            # What was published while no one listened has rung no bell.
            self._wakeups.wake_all()
            self._hears = True
            self._on_pauses()
            self._consumed.begin()
            try:
                with self.resting():
                    await self._hear(line)
            finally:
                # Before the line is closed, which may take a moment. What was committed since it broke rang no bell.
                self._hears = False
                self._on_pauses()
                self._consumed.end()
                self._wakeups.wake_all()
            msg = "the connection that listens for new rows ended"
            raise ConnectionError(msg)

    async def _hear(self, line: Listener) -> None:
        async for heard in line:
            if isinstance(heard, Announcement):
                self._consumed.heard(heard.queues)
            elif isinstance(heard, PausesChanged):
                self._on_pauses()
            else:
                self._wakeups.wake(heard)

    def _fall_back_to_polling(self) -> None:
        if self._token.value:
            # Leases are out under a token whose presence others look for: only a real line will do.
            msg = "LISTEN was answered before and is not any more"
            raise ConnectionError(msg)
        self._enabled = False
        self.health.recovered(self.name)
        self._steady_from = 0.0
        self._log(
            logging.WARNING,
            "LISTEN is accepted but never answered, as behind a pooler in transaction mode: polling instead, and "
            "leases of a killed process end by time only; give a listen_engine that connects directly to the server",
            None,
        )

    def _decide(self, token: str) -> None:
        if not self._token.value:
            self._token.value = token
            # Consumers wait for it as they wait for rows.
            self._wakeups.wake_all()
