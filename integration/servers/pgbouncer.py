"""A real PgBouncer in transaction-pooling mode, started before a PostgreSQL server: Debian's package `pgbouncer`."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable
from .versions import note

POOL_SIZE = 5
"""Connections to the server for each database: fewer than the clients', so that they share them."""


class PgBouncer:
    """The pooler of one PostgreSQL server; all its databases can be reached through it.

    Args:
        folder: an existing empty folder for everything it writes.
        upstream: any database of the server, with the user to log in as.
    """

    def __init__(self, folder: Path, upstream: URL) -> None:
        self._port = ReservedPort()
        file = folder / "pgbouncer.ini"
        file.write_text(_configuration(upstream, self._port.number))
        self.process = ServerProcess([_program(), str(file)], folder)

    def url_of(self, url: str) -> str:
        """The same database through the pooler."""
        return make_url(url).set(host=LOOPBACK, port=self._port.number).render_as_string(hide_password=False)

    def start(self) -> None:
        self.process.start(self._listens)

    def close(self) -> None:
        self.process.stop()
        self._port.release()

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._port.number), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def running_pgbouncer(upstream: URL) -> Iterator[PgBouncer]:
    """A pooler before a server; raises ServerUnavailable when PgBouncer is not installed."""
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-pgbouncer-") as folder:
        pooler = PgBouncer(Path(folder), upstream)
        try:
            pooler.start()
            note("PgBouncer", _version())
            yield pooler
        finally:
            pooler.close()


def _configuration(upstream: URL, port: int) -> str:
    # It refuses to run as root, and becomes another user by itself: its program may lie where only root looks.
    login = f"user={upstream.username}" + (f" password={upstream.password}" if upstream.password else "")
    return f"""\
[databases]
* = host={upstream.host} port={upstream.port or 5432} {login}
[pgbouncer]
listen_addr = {LOOPBACK}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = 200
{"user = nobody" if os.geteuid() == 0 else ""}
"""


def _version() -> str:
    told = subprocess.run([_program(), "--version"], stdout=subprocess.PIPE, text=True).stdout
    return told.split()[1]


def _program() -> str:
    places = os.environ.get("PATH", os.defpath)
    found = shutil.which("pgbouncer", path=f"{places}{os.pathsep}/usr/sbin")
    if found is None:
        raise ServerUnavailable("PgBouncer: install Debian's package pgbouncer")
    return found
