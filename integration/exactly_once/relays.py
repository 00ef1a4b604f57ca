"""Relay processes that tests kill and stop."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

START_SECONDS = 60


class RelayProcess:
    """One relay.

    Args:
        process: It says ``ready`` when it has started, and ``crash`` where it was told to.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def says(self, word: str) -> None:
        """Wait until it says so."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while (line := (await self._process.stdout.readline()).decode()) != f"{word}\n":
                assert line, "the relay has ended"

    def send(self, which: signal.Signals) -> None:
        os.kill(self.pid, which)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def relay_process(
    database_url: str, *, module: str = "integration.exactly_once.process", **options: Any
) -> AsyncIterator[RelayProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        json.dumps(options),
        env={**os.environ, "DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    relay = RelayProcess(process)
    try:
        yield relay
    finally:
        await relay.kill()
