"""Runs a relay in several processes, and starts those anew that die."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence

SHORTEST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Before a process that has died is started again; it grows while processes die soon after their start."""

STEADY_SECONDS = 60.0
"""Who has lived so long has not died of its start."""

UNUSABLE = 2
"""The exit code of a process that cannot use the file, or its port for probes."""


class Processes:
    """The processes of a relay.

    Each is a whole relay: any number of them share the queues, and the order of each key holds.

    Args:
        arguments: Of ``python -m faststream_outbox`` for each of them; its number is added.
        count: How many.
        log: Where it is said that one has died.
        restarts: Whether one that ends by itself is started again; not one that drains.
    """

    def __init__(self, arguments: Sequence[str], count: int, log: logging.Logger, *, restarts: bool) -> None:
        self._arguments = arguments
        self._count = count
        self._log = log
        self._restarts = restarts
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()
        self._is_told_twice = False
        self._signal: int | None = None

    async def run(self) -> int:
        """Run them until all have ended, and return the highest of their exit codes; 130 after Ctrl-C.

        The first signal ends them cleanly, and the second one at once.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        codes = await asyncio.gather(*map(self._keep, range(self._count)))
        if self._signal == signal.SIGINT:
            return 130
        return 143 if self._is_told_twice else max(codes)

    async def _keep(self, number: int) -> int:
        """Run one process, again and again if need be, and return its last exit code."""
        delay = SHORTEST_DELAY
        is_first = True
        while True:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "faststream_outbox",
                *self._arguments,
                "--process",
                str(number),
                # It ends when this pipe does, and so with this process.
                stdin=asyncio.subprocess.PIPE,
                # Ctrl-C is for this process, which passes it on.
                start_new_session=True,
            )
            self._running[number] = process
            if self._ending.is_set():
                _tell_to_end(process)
            code = await process.wait()
            del self._running[number]
            is_done = code >= 0 if not self._restarts else False
            if self._ending.is_set() or is_done:
                return max(code, 0)
            if code == UNUSABLE and is_first:
                self._log.error("process %d cannot run, so none does", number)
                self._end_all()
                return code
            is_first = False
            if time.monotonic() - began > STEADY_SECONDS:
                delay = SHORTEST_DELAY
            self._log.error("process %d (pid %d) has ended with %d; it is started again", number, process.pid, code)
            await self._rest(delay)
            if self._ending.is_set():
                return max(code, 0)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass

    def _end(self, number: int) -> None:
        if self._signal is not None:
            self._is_told_twice = True
            self._log.warning("told to end twice: the processes end at once, and what was in flight is sent again")
            self._pass_on(signal.SIGKILL)
            return
        self._signal = number
        self._end_all()

    def _end_all(self) -> None:
        self._ending.set()
        for process in self._running.values():
            _tell_to_end(process)

    def _pass_on(self, number: int) -> None:
        for process in self._running.values():
            process.send_signal(number)


def _tell_to_end(process: asyncio.subprocess.Process) -> None:
    """End a process cleanly. By no signal: systemd sends one to each process itself, and a second one means at once."""
    if process.stdin is not None:
        process.stdin.close()
