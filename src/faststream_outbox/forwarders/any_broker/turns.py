"""Who may use a connection at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets many send together, or one alone. While one waits to be alone, no other begins."""

    def __init__(self) -> None:
        self._entrance = asyncio.Lock()
        self._together = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Send beside others."""
        async with self._entrance:
            self._together += 1
            self._nobody.clear()
        try:
            yield
        finally:
            self._together -= 1
            if not self._together:
                self._nobody.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Send while no other sends."""
        async with self._entrance:
            await self._nobody.wait()
            yield
