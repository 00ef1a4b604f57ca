"""The harness's side of a measured program."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LONGEST_LINE = 16 * 1024 * 1024


class ProgramFailed(Exception):
    """A measured program ended, or said nothing in time; the message ends with what it wrote to standard error."""


class Program:
    """A program in a process of its own, ready to be told to begin."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.name = name
        self.process = process
        self._errors = errors

    async def hear(self, timeout: float = 120.0) -> dict[str, Any]:
        """Wait for the next line that the program says.

        Raises:
            ProgramFailed: It ended instead, or took longer than ``timeout`` seconds.
        """
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), timeout)
        except TimeoutError:
            line = b""
        if not line:
            self._errors.seek(0)
            raise ProgramFailed(f"{self.name}: no answer\n{self._errors.read()[-4000:]}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    async def say(self, word: str) -> None:
        """Tell the program something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()

    async def ask(self, word: str, timeout: float = 120.0) -> dict[str, Any]:
        """Tell the program something and wait for its answer."""
        await self.say(word)
        return await self.hear(timeout)

    def resident_bytes(self) -> int:
        """Tell how much memory the program has now; 0 where the system does not say."""
        statm = Path(f"/proc/{self.process.pid}/statm")
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if statm.exists() else 0


@asynccontextmanager
async def program(module: str, python: Path, **options: Any) -> AsyncIterator[Program]:
    """Run one of our programs until it is left; it is killed then if it has not ended by itself.

    Args:
        module: As for ``python -m``; the repository is on its path.
        python: Which environment's interpreter.
        options: Handed to the program as JSON.
    """
    # The other package has the same import name: only our own interpreter may look into `src`.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if python == Path(sys.executable):
        environment["PYTHONPATH"] = str(ROOT / "src")
    with tempfile.TemporaryFile("w+") as errors:
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-m", module, json.dumps(options)),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
            start_new_session=True,
        )
        try:
            yield Program(module, process, errors)
        finally:
            if process.returncode is None:
                process.stdin.close()  # type: ignore[union-attr]
                try:
                    await asyncio.wait_for(process.wait(), 5)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def run_program(module: str, python: Path, timeout: float = 120.0, **options: Any) -> dict[str, Any]:
    """Run a program that needs no words to its end; returns what it said."""
    async with program(module, python, **options) as running:
        return await running.hear(timeout)
