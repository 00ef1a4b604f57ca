"""The servers of one run, each started when a workload first asks for it; the same settings for everybody."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from integration.servers.kafka import KafkaServer, running_kafka
from integration.servers.postgres import SETTINGS, EmbeddedPostgres
from integration.servers.rabbitmq import RabbitServer, running_rabbit
from integration.servers.redis import RedisServer, running_redis

POSTGRES_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "300",
}
"""Beside those of the tests' server: a checkpoint would be in the way of whoever has its turn just then."""

ON_DISK = {"fsync": "on", "full_page_writes": "on"}
"""PostgreSQL's defaults, which the tests' server does without."""


class Servers:
    """Starts servers and stops them on leaving.

    Args:
        durable: Whether PostgreSQL waits for the disk, as in earnest. False: the disk of the machine has no say.
    """

    def __init__(self, *, durable: bool) -> None:
        self.durable = durable
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def postgres_settings(self) -> dict[str, str]:
        """What differs from PostgreSQL's defaults."""
        return SETTINGS | POSTGRES_SETTINGS | (ON_DISK if self.durable else {})

    @cached_property
    def postgres(self) -> EmbeddedPostgres:
        """A PostgreSQL of our own."""
        return self._stack.enter_context(running_postgres(self.postgres_settings))

    @cached_property
    def kafka(self) -> KafkaServer:
        """A Kafka."""
        return self._stack.enter_context(running_kafka())

    @cached_property
    def redis(self) -> RedisServer:
        """A Redis."""
        return self._stack.enter_context(running_redis())

    @cached_property
    def rabbit(self) -> RabbitServer:
        """A RabbitMQ."""
        return self._stack.enter_context(running_rabbit())

    @contextmanager
    def durable_database(self) -> Iterator[str]:
        """An empty database on a server that waits for the disk; yields its URL."""
        with running_postgres(SETTINGS | POSTGRES_SETTINGS | ON_DISK) as server:
            yield server.url_of("postgres")

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Copy a database, and drop the copy afterwards; yields its URL."""
        name = self.new_database(template)
        try:
            yield self.postgres.url_of(name)
        finally:
            self.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def new_database(self, template: str = "template1") -> str:
        """Copy a database for good; returns its name."""
        name = f"bench_{next(self._numbers)}"
        self.postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@contextmanager
def running_postgres(settings: dict[str, Any]) -> Iterator[EmbeddedPostgres]:
    """Start a PostgreSQL with these settings, and stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="faststream-outbox-bench-") as folder:
        server = EmbeddedPostgres(Path(folder), **settings)
        try:
            server.start()
            yield server
        finally:
            server.process.stop()
            server.port.release()
