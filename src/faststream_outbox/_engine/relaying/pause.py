"""Keeps lanes from taking rows during a pause."""

from collections.abc import Callable

from faststream_outbox._engine.relaying.signal import Signal


class Pause:
    """A switch that all lanes of a forwarder look at before each hand-over: this process's own, and that of all."""

    def __init__(self) -> None:
        self.is_stored: Callable[[], bool] = _no
        """Whether the forwarder, or each of its queues, is paused for all processes."""
        self._is_own = False
        self._changed = Signal()

    @property
    def is_on(self) -> bool:
        return self._is_own or self.is_stored()

    def begin(self) -> None:
        self._is_own = True
        self.wake()

    def end(self) -> None:
        self._is_own = False
        self.wake()

    def detach(self) -> None:
        """Know no longer what is paused for all processes: the loops have ended."""
        self.is_stored = _no

    def wake(self) -> None:
        """End the waiting of all lanes: one of them has something else to look at."""
        self._changed.send()

    async def change(self, seconds: float | None = None) -> None:
        """Wait until it is switched, or there is something else to look at, but no longer than ``seconds``."""
        await self._changed.wait(seconds)


def _no() -> bool:
    return False
