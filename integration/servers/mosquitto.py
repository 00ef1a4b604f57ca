"""A real MQTT broker, Debian's mosquitto, on loopback only."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable
from .versions import note


class EmbeddedMosquitto:
    """A mosquitto process of our own; keeps its port through `stop` and `start`, and its sessions in memory only.

    Args:
        folder: an existing empty folder for everything the server writes.
    """

    def __init__(self, folder: Path) -> None:
        self._port = ReservedPort()
        self.port = self._port.number
        self.url = f"mqtt://{LOOPBACK}:{self.port}"
        file = folder / "mosquitto.conf"
        file.write_text(f"listener {self.port} {LOOPBACK}\nallow_anonymous true\nmax_packet_size 100000\n")
        self.process = ServerProcess([_program(), "-c", str(file)], folder)

    def start(self) -> None:
        """Start, or start again after `stop`; returns when the server listens."""
        self.process.start(self._listens)

    def stop(self) -> None:
        """Stop cleanly: the clients are disconnected and refused until the next `start`."""
        self.process.stop(signal.SIGTERM)

    def close(self) -> None:
        self.process.kill()
        self._port.release()

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def running_mosquitto() -> Iterator[EmbeddedMosquitto]:
    """A server of our own that is stopped afterwards; raises ServerUnavailable when there is none to run."""
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-mosquitto-") as folder:
        server = EmbeddedMosquitto(Path(folder))
        try:
            server.start()
            note("mosquitto", _version())
            yield server
        finally:
            server.close()


def _version() -> str:
    # It tells its version only with its usage.
    usage = subprocess.run([_program(), "-h"], stdout=subprocess.PIPE, text=True).stdout
    return usage.split()[2]


def _program() -> str:
    places = os.environ.get("PATH", os.defpath)
    program = shutil.which("mosquitto", path=f"{places}{os.pathsep}/usr/sbin")
    if program is None:
        raise ServerUnavailable("MQTT: install mosquitto")
    return program
