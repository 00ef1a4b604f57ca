"""Child processes that tests kill, freeze and wake.

    async with run_python("-c", SOURCE, env={"DATABASE_URL": url}) as child:    # SOURCE prints "ready" when it is
        child.pause()           # SIGSTOP
        child.resume()          # SIGCONT
        await child.kill()      # SIGKILL

No child outlives its `async with`, nor the process that started it.
"""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

RUNNER = Path(__file__).with_name("runner.py")
LONGEST_LINE = 1024 * 1024


class ChildFailed(Exception):
    """The child did not do what was waited for; the message ends with its output."""


class ChildProcess:
    """A program in a process of its own. `lines` holds what it has printed so far, errors included."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self._process = process
        self._output_ended = False
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(), name=f"output of child {process.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        return self._process.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the child is gone."""
        if self.returncode is None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: the process keeps its connections and does nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL, which ends a paused child too, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        await self.wait()

    async def terminate(self, timeout: float = 15.0) -> int:
        """SIGTERM, and wait for the end; returns the exit status."""
        self.send_signal(signal.SIGTERM)
        return await self.wait(timeout)

    async def wait(self, timeout: float = 15.0) -> int:
        """Wait for the end of the child and of its output; returns the exit status.

        Raises ChildFailed when it still runs after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._reading)
                return await self._process.wait()
        except TimeoutError:
            raise self._failure(f"still runs after {timeout:g} s") from None

    async def wait_for_line(self, text: str, timeout: float = 15.0) -> str:
        """Wait until a line that contains `text` has been printed; returns the first such line.

        Raises ChildFailed when the output ends without it, or after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout), self._news:
                await self._news.wait_for(lambda: self._first_line_with(text) is not None or self._output_ended)
        except TimeoutError:
            raise self._failure(f"did not print {text!r} in {timeout:g} s") from None
        line = self._first_line_with(text)
        if line is None:
            raise self._failure(f"ended with status {await self._process.wait()} and did not print {text!r}")
        return line

    def _first_line_with(self, text: str) -> str | None:
        return next((line for line in self.lines if text in line), None)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._output_ended = True
            self._news.notify_all()

    def _failure(self, what: str) -> ChildFailed:
        return ChildFailed("\n".join([f"child {self.pid} {what}; its output:", *self.lines]))


@asynccontextmanager
async def run_python(
    kind: Literal["-c", "-m"],
    program: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    ready: str | None = "ready",
    timeout: float = 15.0,
) -> AsyncIterator[ChildProcess]:
    """Run a Python program in this interpreter's environment; killed on leaving, and when this process dies.

    Args:
        kind, program: "-c" and source text (its common indentation is removed), or "-m" and a module's name. The
            current folder is on the import path.
        arguments: the program's own.
        env: environment variables beside this process's.
        ready: entered when the program has printed a line with this text; None: at once.
        timeout: seconds to wait for that line.

    Raises ChildFailed, with everything the program printed, when that line does not come.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(RUNNER),
        kind,
        textwrap.dedent(program) if kind == "-c" else program,
        *arguments,
        # The child ends when this pipe does.
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        limit=LONGEST_LINE,
        # Ctrl-C is for the tests; what becomes of the children is decided there.
        start_new_session=True,
    )
    child = ChildProcess(process)
    try:
        if ready is not None:
            await child.wait_for_line(ready, timeout)
        yield child
    finally:
        await child.kill()
