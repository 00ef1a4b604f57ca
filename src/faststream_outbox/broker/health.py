"""Whether a broker lives, is ready, and is as well as it could be: the one judgement behind all probes."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.protocol import Store
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.status import ForwarderState

SCHEMA_SECONDS = 60.0
"""For so long tables that were as declared are not compared again: a probe comes every few seconds, in each process."""

ANSWER_SECONDS = 1.0
"""For so long what the database has answered is the answer to all who probe."""

_TROUBLES = {
    ForwarderState.CONNECTING: "has not reached its destination yet",
    ForwarderState.DOWN: "cannot use its destination",
    ForwarderState.PROBING: "tries if its destination works again",
}


class HealthState(StrEnum):
    """How a broker is in this process. Each is equal to its text: ``health.state == "degraded"``."""

    OK = "ok"
    """All works."""
    DEGRADED = "degraded"
    """Messages are accepted and kept; some of them wait, as for a destination that is down. A restart helps nothing."""
    NOT_READY = "not ready"
    """The database or its tables cannot be used, or the broker is not started. It may become ready by itself."""
    DEAD = "dead"
    """A loop has ended or hangs. Only a restart of the process helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHealth:
    """How a broker is at one moment. No text has an error's words, an address or a payload in it."""

    dead: Sequence[str] = ()
    """Loops that have ended, or hang."""
    not_ready: Sequence[str] = ()
    """Why no message can be published or consumed now."""
    degraded: Sequence[str] = ()
    """What does not work while the rest does."""
    forwarders: Mapping[str, ForwarderState] = field(default_factory=dict)
    """The state of each forwarder, by its name."""

    @property
    def is_live(self) -> bool:
        """Whether the process should go on: neither the database nor a destination has a say in that."""
        return not self.dead

    @property
    def is_ready(self) -> bool:
        """Whether it can publish and consume: the database takes writes, and has the tables as they are declared."""
        return not self.dead and not self.not_ready

    @property
    def problems(self) -> Sequence[str]:
        """All that is wrong, the worst first."""
        return (*self.dead, *self.not_ready, *self.degraded)

    @property
    def state(self) -> HealthState:
        """How it is, in one word."""
        if self.dead:
            return HealthState.DEAD
        if self.not_ready:
            return HealthState.NOT_READY
        return HealthState.DEGRADED if self.degraded else HealthState.OK


class HealthJudge:
    """Judges one broker; remembers for a moment what the database has answered, and that its tables were in order."""

    def __init__(self) -> None:
        self._good_until = 0.0
        self._answer: Sequence[str] = ()
        self._answer_until = 0.0
        self._asking = asyncio.Lock()

    async def judge(
        self,
        store: Store,
        runtime: Runtime | None,
        forwarders: Sequence[OutboxForwarder],
        *,
        is_started: bool,
        seconds: float,
    ) -> BrokerHealth:
        """Return how a broker is.

        Args:
            store: Where its rows are.
            runtime: Its loops, if they run.
            forwarders: All that it has.
            is_started: Whether its loops run and do not stop, or whether it has none.
            seconds: How long to wait for the database.
        """
        not_ready = [] if is_started else ["the broker is not started, or stops"]
        if runtime is not None and not runtime.pauses.is_known and runtime.wakeups.queues:
            not_ready.append("the control table cannot be read: nothing is taken")
        return BrokerHealth(
            dead=() if runtime is None else runtime.stalled,
            not_ready=[*not_ready, *await self._answered(store, seconds)],
            degraded=() if runtime is None else [*_degraded(runtime, forwarders)],
            forwarders={forwarder.name: forwarder.state for forwarder in forwarders if forwarder.has_name},
        )

    async def _answered(self, store: Store, seconds: float) -> Sequence[str]:
        # One question at a time, however many probe: each takes a connection of the application's pool.
        async with self._asking:
            if time.monotonic() >= self._answer_until:
                self._answer = await self._of_database(store, seconds)
                self._answer_until = time.monotonic() + ANSWER_SECONDS
            return self._answer

    async def _of_database(self, store: Store, seconds: float) -> Sequence[str]:
        try:
            async with asyncio.timeout(seconds):
                if not await store.ping():
                    return ["the database takes no writes"]
                if time.monotonic() < self._good_until:
                    return ()
                differing = await store.differences()
        except Exception as error:  # noqa: BLE001 - whatever it is, the database cannot be used
            # Its text may have an address in it, or what a row contains.
            return [f"the database cannot be used: {type(error).__name__}"]
        if differing:
            return [f"{table} is not as it is declared; see validate_schema" for table in sorted(differing)]
        self._good_until = time.monotonic() + SCHEMA_SECONDS
        return ()


def _degraded(runtime: Runtime, forwarders: Sequence[OutboxForwarder]) -> Iterator[str]:
    for forwarder in forwarders:
        if (trouble := _TROUBLES.get(forwarder.state)) is not None:
            yield f"forwarder {forwarder.name!r} {trouble}"
        elif forwarder.parts_down:
            yield f"forwarder {forwarder.name!r} cannot use a part of its destination"
    if runtime.listens and not runtime.hears:
        yield "new rows are found by polling: there is no LISTEN connection now"
    if set_aside := runtime.set_aside + sum(forwarder.set_aside for forwarder in forwarders):
        yield f"{set_aside} messages are set aside: the database refuses their outcomes"
