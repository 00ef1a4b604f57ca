"""Exactly once into Kafka, for every reader: see ``docs/exactly-once.md``.

``look`` and ``book`` decide, and do nothing else: the model in the tests drives them through deaths, delayed bytes and
changes of leaders. ``protocol`` has the requests that they need.
"""

from faststream_outbox._engine.health import Log
from faststream_outbox.forwarders.kafka.exact.destination import ExactKafkaDestination
from faststream_outbox.forwarders.kafka.exact.positions import Books
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.silence import Knocker
from faststream_outbox.forwarders.kinds import Address, PositionKeeper
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.suspects import Suspects


def address_of(
    settings: KafkaSettings, suspects: Suspects, outages: Outages, keeping: PositionKeeper, log: Log
) -> Address:
    """Return a topic as a destination that takes each row once."""
    knocker = Knocker(settings, outages.due)
    books = Books(keeping.forwarder, keeping.store, log)
    return Address(
        f"kafka:{settings.topic}",
        settings.request_timeout,
        lambda seconds: ExactKafkaDestination(settings, suspects, seconds, books, outages, knocker=knocker),
        outages,
        is_divided=True,
        maybe_repeated=lambda: books.maybe_repeated,
    )
