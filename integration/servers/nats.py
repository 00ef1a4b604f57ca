"""A real NATS with JetStream for the session.

`OUTBOX_NATS_URL` names a server to use; without it a private `nats-server` is started in a temporary folder, on
loopback only.
"""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import NotFoundError

from .process import LOOPBACK, ReservedPort, ServerProcess, ServerUnavailable, run
from .versions import note

ENVIRONMENT = "OUTBOX_NATS_URL"

ANSWER_SECONDS = 30.0
"""JetStream writes a stream's making and deleting to disk before it answers. Beside a second run of tests that takes
longer than nats-py's 5 s, and a connection longer than 2 s."""


class NatsServer:
    """A NATS that tests have streams of their own on.

    Args:
        url: "nats://host:port".
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = urlsplit(url).hostname or LOOPBACK
        self.port = urlsplit(url).port or 4222

    def url_behind(self, proxy: str) -> str:
        """Its URL for clients of a proxy at "host:port", with the same login."""
        url = urlsplit(self.url)
        login = "".join(url.netloc.rpartition("@")[:2])
        return url._replace(netloc=f"{login}{proxy}").geturl()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A plain client, closed afterwards."""
        # nats-py would try 60 times, even to connect at all.
        once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0}
        client = await nats.connect(self.url, connect_timeout=ANSWER_SECONDS, error_cb=_say_nothing, **once)
        try:
            yield client
        finally:
            await client.close()

    async def version(self) -> str:
        """NATS's version, as "2.15.1"."""
        async with self.client() as client:
            told = client.connected_server_version
            return f"{told.major}.{told.minor}.{told.patch}"

    @contextmanager
    def stream(self, **config: Any) -> Iterator[str]:
        """A stream that takes the subject of its own name and those below it, deleted afterwards; yields the name.

        A stream's settings are given by their names in nats-py: `server.stream(max_msg_size=1000)`.
        """
        name = f"test-{secrets.token_hex(6)}"
        run(self._add_stream(StreamConfig(name, subjects=[name, f"{name}.>"], **config)))
        try:
            yield name
        finally:
            run(self._delete_stream(name))

    async def _add_stream(self, config: StreamConfig) -> None:
        async with self.client() as client:
            await client.jetstream(timeout=ANSWER_SECONDS).add_stream(config)

    async def _delete_stream(self, name: str) -> None:
        async with self.client() as client:
            with suppress(NotFoundError):
                await client.jetstream(timeout=ANSWER_SECONDS).delete_stream(name)

    async def read_stream(self, name: str) -> list[Msg]:
        """All messages of a stream, in its order."""
        async with self.client() as client:
            context = client.jetstream(timeout=ANSWER_SECONDS)
            count = (await context.stream_info(name)).state.messages
            from_the_start = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            subscription = await context.subscribe("", stream=name, ordered_consumer=True, config=from_the_start)
            messages = [await subscription.next_msg(timeout=ANSWER_SECONDS) for _ in range(count)]
            await subscription.unsubscribe()
        return messages


class EmbeddedNats(NatsServer):
    """A NATS process of our own; keeps its port and its streams through `stop` and `start`.

    Args:
        folder: an existing empty folder for everything the server writes.
    """

    def __init__(self, folder: Path) -> None:
        self._port = ReservedPort()
        super().__init__(f"nats://{LOOPBACK}:{self._port.number}")
        data = str(folder / "data")
        command = [_program(), "--addr", LOOPBACK, "--port", str(self._port.number), "--jetstream", "--store_dir", data]
        self.process = ServerProcess(command, folder)

    def start(self) -> None:
        """Start, or start again after `stop` or `process.kill`; returns when JetStream answers."""
        self.process.start(lambda: run(self._answers()))

    def stop(self) -> None:
        """Stop cleanly: the clients are disconnected and refused until the next `start`."""
        self.process.stop(signal.SIGTERM)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._port.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._port.release()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(2), self.client() as client:
                await client.jetstream().account_info()
        except (Error, OSError):
            return False
        return True


@contextmanager
def running_nats() -> Iterator[NatsServer]:
    """The server that the environment names, or else one of our own that is stopped afterwards.

    Raises ServerUnavailable when neither can be had.
    """
    if given := os.environ.get(ENVIRONMENT):
        yield NatsServer(given)
        return
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-nats-") as folder, EmbeddedNats(Path(folder)) as server:
        note("NATS", run(server.version()))
        yield server


async def _say_nothing(_: Exception) -> None:
    """What goes wrong is raised as well."""


def _program() -> str:
    places = os.environ.get("PATH", os.defpath)
    program = shutil.which("nats-server", path=f"{places}{os.pathsep}/usr/sbin")
    if program is None:
        raise ServerUnavailable(f"NATS: set {ENVIRONMENT}, or install nats-server")
    return program
