"""What happens to a router's broker while applications run that include the router."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from faststream_outbox._faststream.fastapi import FastAPIConfig
from faststream_outbox.exceptions import ConfigError


class Applications:
    """The applications of this process in which a router runs: the broker starts with the first, stops with the last.

    Args:
        config: What handlers know of their application: that of the first that runs.
        start: Starts the broker, if it does not run yet.
        stop: Stops it.
    """

    def __init__(
        self, config: FastAPIConfig, *, start: Callable[[], Awaitable[Any]], stop: Callable[[], Awaitable[Any]]
    ) -> None:
        self._config = config
        self._overrides = config.dependency_overrides_provider
        self._start = start
        self._stop = stop
        self._running: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def __contains__(self, application: Any) -> bool:
        return any(application is running for running in self._running)

    @asynccontextmanager
    async def running(self, application: Any) -> AsyncIterator[None]:
        """Keep the broker running at least as long as the block.

        Raises:
            ConfigError: It runs in another event loop, and would end with that.
        """
        loop = asyncio.get_running_loop()
        if self._running and loop is not self._loop:
            msg = (
                f"the OutboxRouter of the application {application.title!r} runs in {self._running[0].title!r} and "
                "another event loop already: make a router for each of them"
            )
            raise ConfigError(msg)
        self._loop = loop
        self._running.append(application)
        self._show_to_handlers()
        try:
            await self._start()
            yield
        finally:
            self._running.remove(application)
            self._show_to_handlers()
            if not self._running:
                await self._stop()

    def _show_to_handlers(self) -> None:
        if self._running:
            self._config.application = self._running[0]
            self._config.dependency_overrides_provider = self._overrides or self._running[0]
