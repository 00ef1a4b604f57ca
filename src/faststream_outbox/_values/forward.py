"""How a forwarder's transform changes what is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Unchanged(Enum):
    """Stands for a part that is sent as it was published, where None means something else."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """How to send a message: what a forwarder's ``transform`` returns. What is not given stays as it is.

    The body cannot be changed: every copy of a message has the same bytes. To compute another body, write a handler
    with the destination's publisher over it: ``@kafka.publisher("bills")`` over ``@broker.subscriber("orders")``.

    Messages that are published with one key reach the destination in their order, also when they get different keys or
    addresses here; among those whose key is removed there is none.

    Example::

        def by_country(message: OutboxMessage) -> Forward | None:
            if message.headers.get("test") == "yes":
                return None  # not sent; it counts as dropped
            country = message.headers["country"]
            return Forward(to=f"orders.{country}", headers={"country": None, "region": country})

        broker.forwarder("orders", to=kafka.publisher("orders"), transform=by_country)
    """

    key: str | Unchanged | None = UNCHANGED
    """The key it is sent with, 1 to 1024 bytes of UTF-8; None: none."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Put over the message's headers; None takes one away. The limits are those of ``publish``."""
    to: str | None = None
    """Where to, if not to the publisher's own address: another topic, routing key, stream, list or channel."""
