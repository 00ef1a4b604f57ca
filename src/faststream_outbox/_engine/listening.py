"""Listens for new rows, and is this process's proof of life."""

import asyncio
import logging
import os
import secrets
import socket

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.service import Service
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import PRESENCE_PREFIX, Store


class Listening(Service):
    """Holds one connection open: wake-ups come in on it, and an advisory lock on it is the presence of the token.

    Args:
        store: Opens the line.
        wakeups: Rung for what is heard.
        health: The database's.
        log: Told when the line is silent.
        enabled: False: poll only, and let leases of a dead process run out.
    """

    def __init__(self, store: Store, wakeups: Wakeups, health: Health, log: Log, *, enabled: bool) -> None:
        super().__init__("outbox-listening", health)
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"
        self._store = store
        self._wakeups = wakeups
        self._log = log
        self._enabled = enabled
        self._token: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def token(self) -> str:
        """Name this process as a holder of leases; waits until it is known whether it can have a presence."""
        return await asyncio.shield(self._token)

    async def run_once(self) -> None:
        if not self._enabled:
            self._decide(f"lease:{self._holder}")
            await self._stopping.wait()
            return
        token = f"{PRESENCE_PREFIX}{self._holder}"
        async with self._store.listen(token) as line:
            if line is None and self._token.done():
                # Leases are out under a token whose presence others look for: only a real line will do.
                msg = "LISTEN was answered before and is not any more"
                raise ConnectionError(msg)
            self.health.recovered()
            if line is None:
                self._enabled = False
                self._log(
                    logging.WARNING,
                    "LISTEN is accepted but never answered, as behind a pooler in transaction mode: polling instead, "
                    "and leases of a killed process run out by time; give listen_engine to go around the pooler",
                    None,
                )
                return
            self._decide(token)
            # What was published while no one listened has rung no bell.
            self._wakeups.wake_all()
            async for queue in line:
                self._wakeups.wake(queue)

    def _decide(self, token: str) -> None:
        if not self._token.done():
            self._token.set_result(token)
