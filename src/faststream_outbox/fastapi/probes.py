"""HTTP probes as routes of FastAPI."""

from typing import Any

from fastapi import APIRouter, Response

from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.probes import DEFAULT_TIMEOUT, report_of, report_of_loops


def make_health_router(broker: OutboxBroker, *, timeout: float = DEFAULT_TIMEOUT) -> APIRouter:
    """Return a router with ``GET /livez`` and ``GET /readyz``, which answer 200 or 503 and say what is wrong.

    ``/livez`` asks whether the loops beat, ``/readyz`` the database too; see ``OutboxBroker.health``. The answers name
    forwarders and tables, and have no error's text in them. They need no login: mount the router where only those can
    reach it who may know that.

    Args:
        broker: Of this process, such as ``router.broker`` of an ``OutboxRouter``.
        timeout: Seconds that ``/readyz`` waits for the database.

    Example::

        app.include_router(make_health_router(router.broker))
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def live(response: Response) -> dict[str, Any]:
        response.status_code = 503 if broker.stalled else 200
        return report_of_loops(broker)

    @router.get("/readyz")
    async def ready(response: Response) -> dict[str, Any]:
        health = await broker.health(timeout=timeout)
        response.status_code = 200 if health.is_ready else 503
        return report_of(health)

    return router
