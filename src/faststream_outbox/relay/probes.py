"""What a relay answers to those who ask how it is: ``/live``, ``/ready``, and ``/metrics``."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from faststream_outbox.broker.health import BrokerHealth, HealthState
from faststream_outbox.probes import report_of, report_of_loops
from faststream_outbox.relay.databases import RelayedDatabase
from faststream_outbox.relay.http import Answer, as_json
from faststream_outbox.relay.relay import Relay

DATABASE_SECONDS = 2.0
"""For one database to answer."""
AT_ONCE = 8
"""Databases that are asked at a time: each answer takes a connection."""
KNOWN_SECONDS = 2.0
"""For so long at least an answer counts for the next one who asks. With many databases it counts for longer ..."""
KNOWN_SECONDS_EACH = 0.1
"""... by so much for each: 100 of them are asked every ten seconds at most."""

_WORST_FIRST = (HealthState.DEAD, HealthState.NOT_READY, HealthState.DEGRADED, HealthState.OK)


class Probes:
    """Asks the brokers of a relay how they are.

    Args:
        relay: The relay.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._known: dict[str, tuple[RelayedDatabase, BrokerHealth, float]] = {}

    @property
    def routes(self) -> Mapping[str, Callable[[], Awaitable[Answer]]]:
        """What answers for each path."""
        routes = {"/live": self.live, "/ready": self.ready}
        return routes if self._relay.scrape is None else {**routes, "/metrics": self._relay.scrape.answer}

    async def live(self) -> Answer:
        """Return 200 while all loops beat, and else 503. No database is asked."""
        reports = {each.name: report_of_loops(each.broker) for each in self._relay.databases}
        state = _worst(report["state"] for report in reports.values())
        return as_json({"state": state, "databases": reports}, is_good=state is not HealthState.DEAD)

    async def ready(self) -> Answer:
        """Return 200 while every database takes writes and has its tables, and else 503.

        A destination that is down is no reason for 503: the answer says ``degraded`` then.
        """
        databases = self._relay.databases
        found = await asyncio.gather(*(self._health(each, len(databases)) for each in databases))
        self._known = {name: known for name, known in self._known.items() if name in {each.name for each in databases}}
        reports: dict[str, Any] = {each.name: report_of(health) for each, health in zip(databases, found, strict=True)}
        state = _worst(health.state for health in found)
        return as_json({"state": state, "databases": reports}, is_good=all(health.is_ready for health in found))

    async def _health(self, database: RelayedDatabase, count: int) -> BrokerHealth:
        async with self._at_once:
            asked, health, until = self._known.get(database.name, (None, None, 0.0))
            if asked is database and health is not None and time.monotonic() < until:
                return health
            health = await database.broker.health(timeout=DATABASE_SECONDS)
            until = time.monotonic() + max(KNOWN_SECONDS, KNOWN_SECONDS_EACH * count)
            self._known[database.name] = database, health, until
            return health


def _worst(states: Iterable[HealthState]) -> HealthState:
    return min(states, key=_WORST_FIRST.index, default=HealthState.OK)
