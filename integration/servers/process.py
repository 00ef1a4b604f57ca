"""What every server that we start ourselves needs: a port, a process that dies with the session, a way to wait."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
GUARDIAN = Path(__file__).with_name("guardian.py")


class ServerUnavailable(Exception):
    """This machine lacks what the server needs (a package, Java, Maven, the network): a reason to skip its tests."""


class ServerFailed(Exception):
    """The server is there but did not start or stop; the message ends with its log."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, also under a running event loop (which it blocks).

    Session fixtures use it: they belong to no test's event loop.
    """
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, coroutine).result()


def run_program(command: Sequence[str], folder: Path, *, user: str | None = None) -> None:
    """Run a program to its end in a folder; raise ServerFailed with its output when it fails."""
    program = subprocess.run(
        command, cwd=folder, user=user, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if program.returncode != 0:
        raise ServerFailed(f"{Path(command[0]).name} failed with status {program.returncode}\n{program.stdout[-4000:]}")


def listens(port: int) -> bool:
    """Ask cheaply, and again and again, whether a server on loopback listens whose clients are the first to speak."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=0.1) as connection:
            # Docker accepts for a container in which nobody listens yet, and closes then.
            return bool(connection.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


class ReservedPort:
    """A free loopback port that stays ours until `release`, also while our server on it is down.

    The socket is bound but never listens. On Linux a server that sets SO_REUSEADDR, as PostgreSQL, Java and asyncio do,
    can listen beside it, while nobody else is given the port; connecting to it without a server is refused as usual.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        # Bound before SO_REUSEADDR is set: the kernel gives two sockets with that flag the same "free" port.
        self._socket.bind((LOOPBACK, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            # Elsewhere the flag does not allow a second bind to the same address: the reservation must go.
            self._socket.close()

    def release(self) -> None:
        self._socket.close()


class ServerProcess:
    """A server in a process of its own, under the guardian that stops it when this process dies.

    Args:
        command: program and arguments.
        folder: existing folder with the server's data; becomes its working directory, takes the log (`server.log`), and
            is removed if this process dies.
        user: name of the user to run as; None keeps the current one.
        stop_signal: the signal on which the server shuts down cleanly.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, *, user: str | None = None, stop_signal: int = signal.SIGTERM
    ) -> None:
        self.command = list(command)
        self.folder = folder
        self.user = user
        self.stop_signal = stop_signal
        self.log = folder / "server.log"
        self.pid: int | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    def start(self, is_ready: Callable[[], bool], timeout: float = 30.0) -> None:
        """Start the server and return when `is_ready` says so; raise ServerFailed if it exits or takes too long."""
        arguments = [str(int(self.stop_signal)), str(self.folder), self.user or "", *self.command]
        with self.log.open("ab") as log:
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", str(GUARDIAN), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C goes to the whole foreground group; the server is needed until the fixtures are torn down.
                start_new_session=True,
            )
        assert self._guardian.stdout is not None
        first_line = self._guardian.stdout.readline()
        if not first_line:
            self._reap(timeout=None)
            raise self._failure("did not start")
        self.pid = int(first_line)
        deadline = time.monotonic() + timeout
        while not (self.alive and is_ready()):
            if not self.alive or time.monotonic() > deadline:
                reason = f"is not ready after {timeout:g} s" if self.alive else "exited"
                self.kill()
                raise self._failure(reason)
            time.sleep(0.02)

    @property
    def alive(self) -> bool:
        return self._guardian is not None and self._guardian.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the server itself; nothing happens when it is gone."""
        if self.alive and self.pid is not None:
            # The guardian may have seen its end just before us.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, stop_signal: int | None = None, timeout: float = 15.0) -> None:
        """Stop the server, cleanly unless another signal is given, and wait for its end; does nothing if it is gone."""
        self.send_signal(signal.SIGCONT)
        self.send_signal(self.stop_signal if stop_signal is None else stop_signal)
        try:
            self._reap(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failure(f"did not stop in {timeout:g} s and was killed") from None

    def kill(self) -> None:
        """`kill -9`, and wait for the end."""
        self.send_signal(signal.SIGKILL)
        self._reap(timeout=None)

    def close(self) -> None:
        """Stop for good."""
        self.stop()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def log_tail(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _failure(self, what: str) -> ServerFailed:
        return ServerFailed(f"{Path(self.command[0]).name} {what}; its log:\n{self.log_tail()}")

    def _reap(self, timeout: float | None) -> None:
        if self._guardian is None:
            return
        self._guardian.wait(timeout)
        for pipe in (self._guardian.stdin, self._guardian.stdout):
            if pipe is not None:
                pipe.close()
        self._guardian = None
