"""A FastStream broker whose queue is a PostgreSQL table, with forwarders to other brokers."""

from typing import TYPE_CHECKING, Any

from faststream.middlewares import AckPolicy

from faststream_outbox._engine.watching.unconsumed import UnconsumedQueue
from faststream_outbox._values.dead_letter import DeadLetter
from faststream_outbox._values.forward import Forward
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.staged import StagedMessage
from faststream_outbox.broker import trying_out as trying_out  # FastStream is to find it
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.broker.health import BrokerHealth, HealthState
from faststream_outbox.broker.router import OutboxRoute, OutboxRoutePublisher, OutboxRouter
from faststream_outbox.exceptions import (
    ConfigError,
    InvalidMessageError,
    InvalidSessionError,
    NoIdentityError,
    NotWrittenError,
    OutboxError,
    SchemaError,
)
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.status import ForwarderState, ForwarderStatus
from faststream_outbox.inbox.inbox import Inbox
from faststream_outbox.message import OutboxMessage
from faststream_outbox.response import OutboxResponse, Outgoing
from faststream_outbox.retry import ConstantRetry, ExponentialRetry, LinearRetry, NoRetry, RetryStrategy
from faststream_outbox.schema import (
    make_dlq_table,
    make_inbox_table,
    make_outbox_control_table,
    make_outbox_table,
    make_position_table,
)

if TYPE_CHECKING:
    from faststream_outbox.testing import TestInbox, TestOutboxBroker

__all__ = (
    "AckPolicy",
    "BrokerHealth",
    "ConfigError",
    "ConstantRetry",
    "DeadLetter",
    "ExponentialRetry",
    "Forward",
    "ForwarderState",
    "ForwarderStatus",
    "HealthState",
    "Inbox",
    "InvalidMessageError",
    "InvalidSessionError",
    "LinearRetry",
    "NoIdentityError",
    "NoRetry",
    "NotWrittenError",
    "OutboxBroker",
    "OutboxError",
    "OutboxForwarder",
    "OutboxMessage",
    "OutboxResponse",
    "OutboxRoute",
    "OutboxRoutePublisher",
    "OutboxRouter",
    "OutboxRow",
    "Outgoing",
    "RetryStrategy",
    "SchemaError",
    "StagedMessage",
    "TestInbox",
    "TestOutboxBroker",
    "UnconsumedQueue",
    "make_dlq_table",
    "make_inbox_table",
    "make_outbox_control_table",
    "make_outbox_table",
    "make_position_table",
)


def __getattr__(name: str) -> Any:
    """Import the names for tests on their first use, so that production does not pay for them."""
    if name in {"TestInbox", "TestOutboxBroker"}:
        from faststream_outbox import testing  # noqa: PLC0415 - see above

        return getattr(testing, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
