"""Keeps lanes from taking rows during a pause."""

from faststream_outbox._engine.relaying.signal import Signal


class Pause:
    """A switch that all lanes of a forwarder look at before each hand-over."""

    def __init__(self) -> None:
        self.is_on = False
        self._changed = Signal()

    def begin(self) -> None:
        self.is_on = True
        self.wake()

    def end(self) -> None:
        self.is_on = False
        self.wake()

    def wake(self) -> None:
        """End the waiting of all lanes: one of them has something else to look at."""
        self._changed.send()

    async def change(self, seconds: float | None = None) -> None:
        """Wait until it is switched, or there is something else to look at, but no longer than ``seconds``."""
        await self._changed.wait(seconds)
