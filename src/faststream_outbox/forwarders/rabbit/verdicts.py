"""What an answer of RabbitMQ means for the rows in flight: the table of failure classes."""

from collections.abc import Sequence
from enum import Enum, auto

from aiormq import exceptions as amqp

from faststream_outbox._values.outcome import Poison, Reason


class Meaning(Enum):
    """What an error says about the rows that wait for an answer."""

    REFUSED = auto()
    """This row was not taken; its neighbours were not touched."""
    QUEUE_DOWN = auto()
    """A queue behind this row's routing key takes no message now. Nothing is wrong with the row."""
    POISON_AMONG_THEM = auto()
    """One of them will never be taken, and the channel is closed over it. RabbitMQ does not say which one."""
    SUSPECT = auto()
    """The connection broke: by chance, or over one of them."""
    OUTAGE = auto()
    """RabbitMQ takes no message at all for now."""


ANSWERS: Sequence[tuple[type[BaseException], Meaning]] = (
    (amqp.PublishError, Meaning.REFUSED),  # 312 NO_ROUTE, basic.return: no queue is bound
    (amqp.DeliveryError, Meaning.QUEUE_DOWN),  # basic.nack: the queue is full and rejects, or has lost its process
    (amqp.ChannelPreconditionFailed, Meaning.POISON_AMONG_THEM),  # 406: too large, or an invalid property
    (amqp.ConnectionFrameError, Meaning.SUSPECT),  # 501: a frame beyond the limit
    (amqp.ConnectionSyntaxError, Meaning.SUSPECT),  # 502: a header that cannot be decoded
    (amqp.ConnectionUnexpectedFrame, Meaning.SUSPECT),  # 505
    (amqp.ConnectionInternalError, Meaning.SUSPECT),  # 541: a header that makes the decoder crash, as NaN does
    (amqp.ChannelNotFoundEntity, Meaning.OUTAGE),  # 404: the exchange is missing, and every row would find it so
    (amqp.ChannelAccessRefused, Meaning.OUTAGE),  # 403: no permission to write to the exchange
    (amqp.ChannelClosed, Meaning.OUTAGE),
    (amqp.ChannelInvalidStateError, Meaning.OUTAGE),  # the channel was closed before the row was sent
    (amqp.ConnectionClosed, Meaning.OUTAGE),  # 320 CONNECTION_FORCED: the server stops, or an operator has closed it
    (TimeoutError, Meaning.OUTAGE),
    (ConnectionError, Meaning.SUSPECT),  # the connection ended without a reason
)
"""The first that fits counts. Codes and names: AMQP 0-9-1 reference, "Constants".

Each other error is an outage: it came before RabbitMQ, or from it as a whole.
"""


def meaning(error: BaseException) -> Meaning:
    """Read what publishing a row has raised."""
    return next((its_meaning for kind, its_meaning in ANSWERS if isinstance(error, kind)), Meaning.OUTAGE)


def poison(error: BaseException) -> Poison:
    """Return the verdict on a row that was alone in flight when the channel was closed."""
    return Poison(Reason.TOO_LARGE if "message size" in str(error) else Reason.INVALID, error)


def is_of_a_routing_key(error: BaseException) -> bool:
    """Return whether the user may write to the exchange, but not with the routing key of a row in flight.

    It is an outage of one address. Where a row has named it, only such rows are met, and they are refused. RabbitMQ's
    documentation, "Topic Authorisation".
    """
    return isinstance(error, amqp.ChannelAccessRefused) and "access to topic" in str(error)


class BlockedError(ConnectionError):
    """RabbitMQ has stopped to read from those who publish: it is short of memory or of disk."""

    def __init__(self) -> None:
        super().__init__("RabbitMQ blocks publishers: it is short of memory or of disk space")


class QueueOutageError(Exception):
    """A queue that a message is bound for does not take it now, which says nothing of the message.

    The queue is full and rejects (``x-overflow: reject-publish``), or its process, its node or its majority is gone.
    Other queues of the same exchange may have got their copy.
    """

    @classmethod
    def of_nack(cls, exchange: str, routing_key: str) -> "QueueOutageError":
        """Return the error of a message that was answered by basic.nack."""
        where = f"the exchange {exchange!r} with the routing key {routing_key!r}" if exchange else repr(routing_key)
        return cls(f"RabbitMQ answered basic.nack for {where}: a queue is full and rejects, or its node is down")

    @classmethod
    def of_node(cls, queue: str) -> "QueueOutageError":
        """Return the error of a message that was returned, to a queue whose node is down."""
        return cls(f"RabbitMQ returned a message for {queue!r}: the node that has this queue is down")
