"""FastAPI: HTTP routes and outbox subscribers on one router, sharing FastAPI's dependencies."""

from importlib.util import find_spec

if find_spec("fastapi") is None:
    msg = (
        "faststream_outbox.fastapi needs FastAPI, and the package fastapi is not installed: install it, or this "
        "package's checkout or wheel with its extra fastapi"
    )
    raise ImportError(msg, name="fastapi")

from faststream_outbox.fastapi.context import (
    Context,
    ContextRepo,
    Logger,
    OutboxBroker,
    OutboxMessage,
    OutboxProducer,
)
from faststream_outbox.fastapi.probes import make_health_router
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
    "make_health_router",
)
