"""How a measured program and the harness talk: lines on standard input, JSON lines on standard output.

The program says that it is ready, waits for a word, works, and says what came of it. When the harness is gone its
standard input ends, and so does the program.
"""

import asyncio
import json
import logging
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any


class Talk:
    """One program's side.

    Args:
        options: What the harness wants, from the command line.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self._lines: asyncio.StreamReader | None = None

    def say(self, **facts: Any) -> None:
        """Tell the harness something."""
        print(json.dumps(facts), flush=True)

    async def hear(self) -> str:
        """Wait for the harness's next word; ends the program when the harness is gone."""
        if self._lines is None:
            self._lines = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            lines = self._lines
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        line = await self._lines.readline()
        if not line:
            # Nobody waits for anything any more.
            os._exit(1)
        return line.decode().strip()


def run(main: Callable[[Talk], Awaitable[None]]) -> None:
    """Run a program whose options stand on the command line as JSON."""
    # Lines about single messages are left out for everybody; what goes wrong is kept.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

    async def call() -> None:
        await main(Talk(json.loads(sys.argv[1])))

    asyncio.run(call())


def quiet_logger() -> logging.Logger:
    """Give brokers a logger that drops lines about single messages."""
    return logging.getLogger("benchmark")


def cpu_seconds() -> float:
    """Tell the processor time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
