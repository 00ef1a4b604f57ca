"""``python -m demo``: start the servers, serve the shop, and stop everything on Ctrl-C."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Self

import uvicorn

from demo import servers
from demo.feed import hub


def main() -> int:
    options = _parse()
    # The address is taken first: that a port is in use should be said before anything is started.
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {options.host}, port {options.port}: {error}", file=sys.stderr)
        print("Choose another with --host and --port, or with HOST and PORT in the environment.", file=sys.stderr)
        return 1

    # The page answers to this name, and to no other but localhost.
    os.environ["HOST"] = options.host

    # The page shows what happens; the terminal is for what goes wrong.
    logging.disable(logging.INFO)
    _say("", "faststream-outbox · live demo", "")
    with listener, _Interruption() as interruption:
        _run(listener, options.host, interruption)
    _say("Stopped.", "")
    return 0


def _run(listener: socket.socket, host: str, interruption: "_Interruption") -> None:
    with ExitStack() as running:
        try:
            os.environ["DATABASE_URL"] = _start(running, "PostgreSQL", servers.postgres())
            os.environ["KAFKA_BOOTSTRAP"] = _start(running, "Kafka", servers.kafka())
        except Exception:
            # Ctrl-C in a terminal also reaches the programs that start a server. That they fail then is no news.
            if not interruption.happened:
                raise
        if not interruption.happened:
            asyncio.run(_serve(listener, host, interruption))


def _start(running: ExitStack, name: str, server: AbstractContextManager[str]) -> str:
    since = time.perf_counter()
    address = running.enter_context(server)
    _say(f"{name:<12}up in {time.perf_counter() - since:.1f} s")
    return address


async def _serve(listener: socket.socket, host: str, interruption: "_Interruption") -> None:
    server = _Server(
        uvicorn.Config("demo.app:app", log_level="warning", lifespan="on", timeout_graceful_shutdown=10),
        ready=lambda: _say("", f"Open   http://{_in_url(host)}:{listener.getsockname()[1]}", "Stop   Ctrl-C"),
    )
    interruption.callback = server.stop
    if interruption.happened:
        server.stop()
    await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _say("", "Stopping …")
        await super().shutdown(sockets)

    def stop(self) -> None:
        self.force_exit = self.should_exit  # asked a second time: do not wait for open responses
        self.should_exit = True
        hub.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own handler raises the signal again when it has shut down, which would end this process before the
        # servers below it are stopped.
        yield


class _Interruption:
    """Ctrl-C (or SIGTERM) as a value instead of an exception, so that starting and stopping are never cut in half."""

    def __init__(self) -> None:
        self.happened = False
        self.callback: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.happened = True
        if self.callback is not None:
            self.callback()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="A shop that writes orders and messages in one transaction, and a page that shows every step.",
        epilog="DATABASE_URL and KAFKA_BOOTSTRAP name servers of your own; without them, embedded ones are started. "
        "ALLOWED_HOSTS names hosts that the page may be opened under, beside localhost, HOST and addresses in numbers.",
    )
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"), help="address (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("PORT", "8000"),
        help="port; 0 takes a free one (default: %(default)s)",
    )
    return parser.parse_args()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _say(*lines: str) -> None:
    for line in lines:
        print(f"  {line}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
