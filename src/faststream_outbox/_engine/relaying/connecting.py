"""Connects a destination; an attempt can be ended early."""

import asyncio
from contextlib import suppress

from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._engine.service import is_cancelled

CLOSE_SECONDS = 5.0


class Connector:
    """The attempts of one lane to connect.

    Args:
        destination: What to connect.
        seconds: For one attempt.
    """

    def __init__(self, destination: Destination, seconds: float) -> None:
        self._destination = destination
        self._seconds = seconds
        self._current: asyncio.Timeout | None = None

    async def attempt(self) -> BaseException | None:
        """Connect so that rows can be sent; return the error that prevents it, or None."""
        try:
            async with asyncio.timeout(self._seconds) as self._current:
                await self._destination.connect()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            return error
        finally:
            self._current = None
        return None

    async def let_go(self) -> None:
        """Close what an attempt has opened; the next attempt opens it again."""
        # What cannot be closed is not used any more either.
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._destination.close()

    def give_up(self) -> None:
        """End an attempt that is under way: no row depends on it."""
        if self._current is not None and not self._current.expired():
            self._current.reschedule(0.0)
