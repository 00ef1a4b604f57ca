"""Runs a relay in this process, until a signal ends it or nothing is left to do."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from faststream_outbox.relay import connections
from faststream_outbox.relay.http import HttpServer
from faststream_outbox.relay.probes import Probes
from faststream_outbox.relay.problems import Problem, SettingsError
from faststream_outbox.relay.relay import Relay

LOGGER = "faststream_outbox.relay"


class Ending(Enum):
    """Why a relay has ended."""

    STOPPED = "SIGTERM, or the process that has started it is gone"
    INTERRUPTED = "Ctrl-C"
    DRAINED = "nothing is left to be sent"
    LEFT = "something is left after the time that was given"


class PlainFormatter(logging.Formatter):
    """One line for each record, with time and level; what is secret is replaced.

    Args:
        without_secrets: Replaces what must not be shown.
    """

    def __init__(self, without_secrets: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._without_secrets = without_secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return self._without_secrets(super().format(record))


async def run(file: Path, *, drain: bool = False, within: float | None = None, number: int | None = None) -> Ending:
    """Run the relay of a file.

    SIGTERM and SIGINT stop it cleanly; a second one ends the process at once. SIGHUP reads the file again.

    Args:
        file: The file.
        drain: Leave when nothing is left.
        within: Seconds after which a relay that drains leaves in any case.
        number: Of this process, if another one has started several.

    Raises:
        SettingsError: The file cannot be used, or the port for probes is taken.
    """
    log = logging.getLogger(LOGGER)
    relay = Relay(file, log)
    log_to_stderr(relay)
    runner = _Runner(relay, log)
    runner.follow_signals(has_parent=number is not None)
    server = await _answer_probes(relay, log, number or 0)
    try:
        await relay.start()
        log.info("the relay runs: %s, process %d", relay.summary, os.getpid())
        return await runner.until_the_end(drain=drain, within=within)
    finally:
        await relay.stop()
        # Last: while it stops, it says that it is not ready.
        await server.stop()
        log.info("the relay has stopped")


async def _answer_probes(relay: Relay, log: logging.Logger, number: int) -> HttpServer:
    server = HttpServer(Probes(relay).routes)
    if relay.settings.http is not None:
        host, port = relay.settings.http.host, relay.settings.http.port
        # 0: any that is free.
        try:
            port = await server.start(host, port + number if port else 0)
        except (OSError, OverflowError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise SettingsError(str(relay.file), [Problem("http", text)]) from error
        log.info("it answers probes at http://%s:%d/live and /ready", host, port)
    return server


class _Runner:
    """Waits for what ends a relay."""

    def __init__(self, relay: Relay, log: logging.Logger) -> None:
        self._relay = relay
        self._log = log
        self._is_told = False
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._reloading: set[asyncio.Task[None]] = set()

    def follow_signals(self, *, has_parent: bool) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._obey, Ending.STOPPED)
        loop.add_signal_handler(signal.SIGINT, self._obey, Ending.INTERRUPTED)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        if has_parent:
            # Nothing is written to it; it ends with the process that has started this one.
            loop.add_reader(sys.stdin.fileno(), self._end_with_the_parent)

    async def until_the_end(self, *, drain: bool, within: float | None) -> Ending:
        if not drain:
            return await self._ended
        draining = asyncio.create_task(self._relay.wait_until_drained(), name="relay-drain")
        awaited: list[asyncio.Future[Any]] = [self._ended, draining]
        try:
            await asyncio.wait(awaited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
        if self._ended.done():
            return self._ended.result()
        if draining.done() and not draining.cancelled():
            return Ending.DRAINED
        for line in await self._relay.left():
            self._log.warning("left: %s", line)
        return Ending.LEFT

    def _obey(self, ending: Ending) -> None:
        """End because of a signal. Only a second signal is one too many, not one beside the parent's end."""
        if self._is_told:
            self._log.warning("told to end twice: the process ends at once, and what was in flight is sent again")
            logging.shutdown()
            os._exit(130 if ending is Ending.INTERRUPTED else 143)
        self._is_told = True
        self._end(ending)

    def _end(self, ending: Ending) -> None:
        if not self._ended.done():
            self._log.info("the relay stops (%s): it finishes what is in flight", ending.value)
            self._ended.set_result(ending)

    def _end_with_the_parent(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._end(Ending.STOPPED)

    def _reload(self) -> None:
        if not self._ended.done():
            task = asyncio.create_task(self._read_again(), name="relay-reload")
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)

    async def _read_again(self) -> None:
        if await self._relay.reload():
            self._log.setLevel(self._relay.settings.log_level.upper())


def log_to_stderr(relay: Relay) -> None:
    """Write the log to stderr, without what is secret."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter(relay.without_secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Of clients, and of what they use, only what is wrong.
    root.setLevel(logging.WARNING)
    logging.getLogger(LOGGER).setLevel(relay.settings.log_level.upper())
    # SQLAlchemy names a pool's logger by its class, and tells of each connection.
    logging.getLogger(connections.__name__).setLevel(logging.WARNING)
