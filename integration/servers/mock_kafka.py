"""librdkafka's mock cluster: Kafka's protocol in this process, up in milliseconds.

For quick checks of the wire only. It has no fencing, its transactions cannot be read back, and it creates unknown
topics; what a test claims about Kafka is shown on a real one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer


@contextmanager
def mock_kafka(brokers: int = 1) -> Iterator[str]:
    """A mock cluster on loopback for as long as it is entered; yields "host:port", or several separated by commas."""
    # The cluster belongs to the producer. The address is not used: the option replaces it by the mock's own.
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": brokers})
    cluster = owner.list_topics(timeout=10)
    yield ",".join(f"{broker.host}:{broker.port}" for broker in cluster.brokers.values())
    del owner
