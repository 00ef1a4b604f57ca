"""HTTP probes as ASGI handlers, for ``AsgiFastStream`` and every other ASGI application."""

import json
from typing import Any

from faststream.asgi import AsgiResponse, HttpHandler, get

from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.broker.health import BrokerHealth, HealthState

DEFAULT_TIMEOUT = 0.8
"""Seconds for the database: less than the second after which Kubernetes gives a probe up by default."""


def make_live_asgi(broker: OutboxBroker) -> HttpHandler:
    """Return a handler that answers 200 while all loops of the broker beat, and 503 when one has ended or hangs.

    The database is not asked, and a destination has no say: a restart repairs neither.

    Args:
        broker: Of this process.

    Example::

        routes = [("/livez", make_live_asgi(broker)), ("/readyz", make_ready_asgi(broker))]
        app = AsgiFastStream(broker, asgi_routes=routes)
    """

    @get(include_in_schema=False)
    async def live(_scope: Any) -> AsgiResponse:
        return _answer(report_of_loops(broker), is_good=not broker.stalled)

    return live


def make_ready_asgi(broker: OutboxBroker, *, timeout: float = DEFAULT_TIMEOUT) -> HttpHandler:
    """Return a handler that answers 200 while the broker can publish and consume, and else 503.

    A destination that is down is no reason for 503: the answer says ``degraded`` then.

    Args:
        broker: Of this process.
        timeout: Seconds to wait for the database.
    """

    @get(include_in_schema=False)
    async def ready(_scope: Any) -> AsgiResponse:
        health = await broker.health(timeout=timeout)
        return _answer(report_of(health), is_good=health.is_ready)

    return ready


def report_of(health: BrokerHealth) -> dict[str, Any]:
    """Return a broker's health as the body of an answer: its state, its problems, and the state of each forwarder."""
    return {"state": health.state, "problems": [*health.problems], "forwarders": dict(health.forwarders)}


def report_of_loops(broker: OutboxBroker) -> dict[str, Any]:
    """Return as the body of an answer whether a broker's loops beat."""
    stalled = [*broker.stalled]
    return {"state": HealthState.DEAD if stalled else HealthState.OK, "problems": stalled}


def _answer(report: dict[str, Any], *, is_good: bool) -> AsgiResponse:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return AsgiResponse(json.dumps(report).encode(), 200 if is_good else 503, headers)
