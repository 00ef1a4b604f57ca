"""Annotated shortcuts for handlers of a plain FastStream application; ``faststream_outbox.fastapi`` has FastAPI's."""

from typing import Annotated

from faststream.annotations import ContextRepo, Logger
from faststream.params import Context, NoCast

from faststream_outbox.broker.broker import OutboxBroker as _OutboxBroker
from faststream_outbox.message import OutboxMessage as _OutboxMessage
from faststream_outbox.publisher.producer import OutboxProducer as _OutboxProducer

__all__ = ("ContextRepo", "Logger", "NoCast", "OutboxBroker", "OutboxMessage", "OutboxProducer")

OutboxBroker = Annotated[_OutboxBroker, Context("broker")]
OutboxMessage = Annotated[_OutboxMessage, Context("message")]
OutboxProducer = Annotated[_OutboxProducer, Context("broker.config.producer")]
