"""Says when a destination keeps its forwarder waiting, long before it is given up."""

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from faststream_outbox._engine.health import QUIET_SECONDS, Health, Log

PATIENCE_SECONDS = 5.0
"""A destination that works answers within milliseconds, or a second under load."""


class Patience:
    """Logs once that a destination takes rows and does not answer.

    A server may be silent for as long as its client waits, which is half a minute without a line in the log. Once the
    destination counts as down, the log has said so.

    Args:
        health: The destination's.
        log: Where to tell it.
        seconds: After which the destination is given up, for the log.
    """

    def __init__(self, health: Health, log: Log, seconds: float) -> None:
        self._health = health
        self._log = log
        self._seconds = seconds
        self._is_told = False
        self._next_line = -math.inf

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Watch the time inside of it; an end without delay makes the next delay worth a line again.

        Args:
            what: What is waited for, as in "an answer".
        """
        began = time.monotonic()
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._say, what)
        try:
            yield
        finally:
            timer.cancel()
            if time.monotonic() - began < PATIENCE_SECONDS:
                self._is_told = False

    def _say(self, what: str) -> None:
        now = time.monotonic()
        if self._is_told or self._health.is_down or now < self._next_line:
            return
        self._is_told = True
        self._next_line = now + QUIET_SECONDS
        message = (
            f"{self._health.name}: {what} for {PATIENCE_SECONDS:g} s now; it is given up after {self._seconds:g} s"
        )
        self._log(logging.WARNING, message, None)
