"""Wakes those who wait for something to change."""

import asyncio


class Signal:
    """Wakes all that wait at this moment; a later waiter waits for the next signal."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def send(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it is sent, but no longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._next.wait()
        except TimeoutError:
            pass
