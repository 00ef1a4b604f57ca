"""FastAPI: HTTP routes and outbox subscribers on one router, sharing FastAPI's dependencies."""

from importlib.util import find_spec

if find_spec("fastapi") is None:
    msg = "faststream_outbox.fastapi needs FastAPI: pip install 'faststream-outbox[fastapi]'"
    raise ImportError(msg)

from faststream_outbox.fastapi.context import (
    Context,
    ContextRepo,
    Logger,
    OutboxBroker,
    OutboxMessage,
    OutboxProducer,
)
from faststream_outbox.fastapi.router import OutboxRouter
from faststream_outbox.response import OutboxResponse

__all__ = (
    "Context",
    "ContextRepo",
    "Logger",
    "OutboxBroker",
    "OutboxMessage",
    "OutboxProducer",
    "OutboxResponse",
    "OutboxRouter",
)
