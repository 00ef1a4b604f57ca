"""The kinds that the shared suite of forwarders is run on."""

from .base import Box
from .confluent import ConfluentBox
from .kafka import KafkaBox
from .memory import MemoryBox
from .nats import NatsBox
from .rabbit import ExchangeBox, QueueBox
from .redis import ListBox, StreamBox

BOXES: dict[str, type[Box]] = {
    box.kind: box for box in (KafkaBox, QueueBox, ExchangeBox, StreamBox, ListBox, NatsBox, ConfluentBox, MemoryBox)
}

SERVERS = [kind for kind, box in BOXES.items() if box.is_server and box.is_main]
"""One for each way to a server."""
REAL = [kind for kind, box in BOXES.items() if box.is_server]
"""Those, and what is different about addresses of the same server."""
EVERY = list(BOXES)
"""And the one in memory."""
