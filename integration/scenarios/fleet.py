"""Several relays at once, one of which now and then dies, stops or is replaced."""

import random
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from integration.faults.processes import ChildProcess
from integration.relay import RelayPlan, running_relay


class Fleet:
    """Runs `size` relays as an async context manager; all are ready when it is entered, and killed when it is left.

    Args:
        draw: chooses the victims.
    """

    def __init__(self, plan: RelayPlan, size: int, draw: random.Random) -> None:
        self.plan = plan
        self.size = size
        self.relays: list[ChildProcess] = []
        self._draw = draw
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self.size):
                await self._add()
            for relay in self.relays:
                await relay.wait_for_line("ready", 60)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def kill_one(self) -> None:
        """`kill -9` one of them, and start another."""
        await self._take_one().kill()
        await self._add()

    async def stop_one(self) -> None:
        """Stop one of them cleanly, and start another."""
        relay = self._take_one()
        # Before that it is an interpreter that loads modules, and knows of no clean stop.
        await relay.wait_for_line("ready", 60)
        assert await relay.terminate(60) == 0
        await self._add()

    async def crash_one(self, point: str, number: int = 1) -> None:
        """Start one that dies at a point, beside the others, and wait for its end."""
        plan = replace(self.plan, crash_point=point, crash_number=number)
        async with running_relay(plan, wait=False) as relay:
            assert await relay.wait(60) < 0, f"{point} was not reached"

    def _take_one(self) -> ChildProcess:
        return self.relays.pop(self._draw.randrange(len(self.relays)))

    async def _add(self) -> None:
        self.relays.append(await self._stack.enter_async_context(running_relay(self.plan, wait=False)))
