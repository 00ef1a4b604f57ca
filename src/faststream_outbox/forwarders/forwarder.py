"""A forwarder: lanes from some queues to one destination."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.health import Log
from faststream_outbox._engine.relaying.breaker import Breaker, BreakerState
from faststream_outbox._engine.relaying.deferrer import Deferrer
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.patience import Patience
from faststream_outbox._engine.relaying.pause import Pause
from faststream_outbox._engine.relaying.positions import Positioned
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.team import Tally, Team
from faststream_outbox._engine.service import DATABASE_SECONDS
from faststream_outbox._engine.watching.obstructions import Guarded
from faststream_outbox._engine.watching.reminder import Watched
from faststream_outbox._faststream import has_broker, server_addresses
from faststream_outbox._store.positions import PositionStore
from faststream_outbox._store.protocol import DEFAULT_BATCH_BYTES
from faststream_outbox._values.control import StoredPause
from faststream_outbox._values.copies import copy_queue
from faststream_outbox._values.limits import check_copy_queue
from faststream_outbox._values.outcome import Dropped, Refused, describe
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.checks import MIN_SECONDS, check_options, require_count, require_flag, require_seconds
from faststream_outbox.exceptions import ConfigError, InvalidMessageError
from faststream_outbox.forwarders.factory import Destinations, check_envelope, create_destinations
from faststream_outbox.forwarders.kinds import LaneDestination, PositionKeeper
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.patient import PatientDestination
from faststream_outbox.forwarders.status import ForwarderState, ForwarderStatus
from faststream_outbox.forwarders.tracing import TracedDestination
from faststream_outbox.forwarders.transform import Preparer
from faststream_outbox.retry import DEFAULT_RETRY, as_strategy
from faststream_outbox.schema import SHARDS
from faststream_outbox.tracing import server_attributes

SETTLE_SECONDS = 2.0
"""For writing the outcomes of a hand-over that has just ended; then its lane is cut off, and gives all rows back."""

_STATES = {
    BreakerState.CLOSED: ForwarderState.FLOWING,
    BreakerState.OPEN: ForwarderState.DOWN,
    BreakerState.HALF_OPEN: ForwarderState.PROBING,
}

_SHOWN = 5
"""Queues that one line of the log names."""


class OutboxForwarder:
    """Carries the rows of some queues to a destination; made by ``broker.forwarder(...)``.

    It starts and stops with the broker. A destination that is down when it starts does not stop the application: the
    forwarder tries to connect until it can.
    """

    def __init__(self, queues: Sequence[str], *, to: Any, config: Any, **options: Unpack[ForwarderOptions]) -> None:
        check_options("forwarder", options, ForwarderOptions)
        self._queues = queues
        self.to = to
        """The publisher of the destination."""
        self._config = config
        self._name = _checked_name(options.get("name"))
        self.tee = require_flag("tee", options.get("tee", False))
        """Whether it takes its own copy of each message."""
        self._batch_size = require_count("batch_size", options.get("batch_size", 500))
        self._batch_bytes = require_count("batch_bytes", options.get("batch_bytes", DEFAULT_BATCH_BYTES))
        # A lane more would never have a shard to work on.
        self._lane_count = require_count("lanes", options.get("lanes", 2), at_most=SHARDS * len(queues))
        timeout = options.get("send_timeout")
        self._send_timeout = None if timeout is None else require_seconds("send_timeout", timeout, at_least=MIN_SECONDS)
        self._min_interval = require_seconds(
            "min_fetch_interval", options.get("min_fetch_interval", 1.0), at_least=MIN_SECONDS
        )
        self._max_interval = require_seconds(
            "max_fetch_interval", options.get("max_fetch_interval", 1.5), at_least=self._min_interval
        )
        self._allow_lossy = require_flag("allow_lossy", options.get("allow_lossy", False))
        transform = options.get("transform")
        self._prepare = None if transform is None else Preparer(transform)
        self._envelope = check_envelope(options.get("envelope"))
        self._tombstones = require_flag("tombstones", options.get("tombstones", False))
        self._count_nacks = require_flag("count_nacks", options.get("count_nacks", False))
        self.exactly_once = require_flag("exactly_once", options.get("exactly_once", False))
        """Whether it keeps how far it has come, to send each message once."""
        self._made: Destinations | None = None
        retry = options.get("retry_strategy")
        self._failure = FailurePolicy(
            retry=DEFAULT_RETRY if retry is None else as_strategy(retry),
            hold_key=require_flag("hold_key", options.get("hold_key", False)),
            text_of=lambda error: self._config.text_of(error),  # noqa: PLW0108 - a router has another before it is included
        )
        self._destinations: Sequence[LaneDestination] = ()
        self._outages = Outages()
        self._lanes: list[Lane] = []
        self._pause = Pause()
        self._team: Team | None = None
        self._watched: Watched | None = None
        self._guarded: Guarded | None = None

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues, with the prefixes of the routers that the forwarder stands on."""
        return [f"{self._config.prefix}{queue}" for queue in self._queues]

    @property
    def name(self) -> str:
        """The name given, or kind and address of the destination.

        Raises:
            ConfigError: The destination's publisher stands on a router that is not included in a broker, or its
                settings are not safe.
        """
        if self._name is None:
            self._name = self._create_destinations(lambda *_: None, lanes=0).name
        return self._name

    @property
    def has_name(self) -> bool:
        """Whether the name can be known by now: an address has the prefixes of the routers that its publisher is on."""
        return self._name is not None or has_broker(self.to)

    @property
    def taken_queues(self) -> Sequence[str]:
        """The names of the queues that rows are taken from: those of its copies if it has ``tee=True``."""
        return [self.taken_from(queue) for queue in self.queues]

    def taken_from(self, queue: str) -> str:
        """Name the queue that rows are taken from which were published to ``queue``.

        Raises:
            ConfigError: See ``name``; or the queue of copies has a name that is too long.
        """
        if not self.tee:
            return queue
        copies = copy_queue(queue, self.name)
        try:
            check_copy_queue(copies)
        except InvalidMessageError as error:
            raise ConfigError(str(error)) from None
        return copies

    @property
    def most_connections(self) -> int:
        """The most connections to the database that its lanes hold at once."""
        # Positions are written beside a hand-over.
        return self._lane_count * (2 if self.exactly_once else 1)

    @property
    def is_paused(self) -> bool:
        """Whether it is paused, in this process (``pause``) or for all of them (``broker.admin.pause``).

        For all processes, the forwarder may be paused, or each of its queues. Until the control table was read for the
        first time, it counts as paused.
        """
        return self._pause.is_on

    def pause(self) -> None:
        """Take no more rows in this process, until ``resume``; other processes go on.

        What is in flight is finished. A paused forwarder holds no connection, neither to the database nor to its
        destination. Only where the database could not write an outcome before, it takes a connection to try again: a
        pause is of sending. It may be paused before it is started, and stays so when it is stopped and started again.
        ``broker.admin.pause`` is for all processes.
        """
        self._pause.begin()
        self._interrupt()

    def _interrupt(self) -> None:
        for lane in self._lanes:
            lane.interrupt()

    def _look_at_pauses(self) -> None:
        """Begin or end a pause for all processes."""
        if self._pause.is_on:
            self._interrupt()
        else:
            self._pause.wake()

    def resume(self) -> None:
        """End a pause of this process; one for all processes ends with ``broker.admin.resume``."""
        self._pause.end()

    async def status(self) -> ForwarderStatus:
        """Return the forwarder's state; asks the database how many rows wait.

        Raises:
            Exception: What the driver raises when the database cannot be asked; TimeoutError after 30 s.

        Example::

            status = await forwarder.status()
            if status.state == "down" or status.parts_down or (status.lag_seconds or 0) > 60:
                alert(status.last_error)

        Rows that wait for a part that is down do not count in the lag, so an alert needs ``parts_down`` too.
        """
        state = self.state
        lag = None if state is ForwarderState.STOPPED else await self._config.runtime.lag(self.taken_queues)
        tally = Tally() if self._team is None else self._team.tally
        remembered = Remembered() if self._team is None else self._team.remembered
        return ForwarderStatus(
            name=self.name,
            state=state,
            lag_rows=None if lag is None else lag.rows,
            lag_seconds=None if lag is None else lag.seconds,
            last_error=None if self._team is None else describe(self._team.breaker.last_error),
            parts_down=() if state is ForwarderState.STOPPED else tuple(self._outages.down()),
            sent=tally.sent,
            refused=tally.refused,
            dead=tally.dead,
            dropped=tally.dropped,
            deduplicated=tally.deduplicated,
            set_aside=remembered.set_aside,
            set_aside_error=describe(remembered.last_error),
            maybe_repeated=self.maybe_repeated,
            maybe_lost=self.maybe_lost,
            pauses=self._stored_pauses(),
            pauses_known=state is ForwarderState.STOPPED or self._config.runtime.pauses.is_known,
            blocked_by=() if self._guarded is None else tuple(self._config.runtime.blocked_by(self._guarded)),
        )

    def _stored_pauses(self) -> Sequence[StoredPause]:
        return self._config.runtime.pauses.of(self.taken_queues, self.name) if self._lanes else ()

    @property
    def state(self) -> ForwarderState:
        """Its state in this process; the database is not asked."""
        if self._team is None or not self._lanes:
            return ForwarderState.STOPPED
        if self._pause.is_on:
            return ForwarderState.PAUSED
        if not self._team.breaker.was_reached:
            return ForwarderState.CONNECTING
        return _STATES[self._team.breaker.state]

    @property
    def parts_down(self) -> int:
        """How many parts of its destination take no messages, as far as this process knows."""
        return 0 if self.state is ForwarderState.STOPPED else len(self._outages.down())

    @property
    def maybe_repeated(self) -> int:
        """How often it could not be known whether messages were sent; see ``status``."""
        return 0 if self._made is None else self._made.maybe_repeated()

    @property
    def maybe_lost(self) -> int:
        """How often the destination has lost what it had acknowledged, as far as it shows; see ``status``."""
        return 0 if self._made is None else self._made.maybe_lost()

    @property
    def set_aside(self) -> int:
        """How many messages it has sent whose outcome the database refuses; see ``status``."""
        return 0 if self._team is None else self._team.remembered.set_aside

    def prepare(self, row: OutboxRow) -> Parcel | Dropped | Refused:
        """Return what is sent of a row, as ``transform`` decides; an error of ``transform`` is the row's failure."""
        return Parcel(row) if self._prepare is None else self._prepare(row)

    def check(self) -> None:
        """Check the destination's settings as ``start`` does. Nothing is opened, and nothing begins.

        Raises:
            ConfigError: They are not safe; the message says what to write instead.
        """
        store = self._config.broker_config.storage.store
        self._create_destinations(lambda *_: None, lanes=0, keeping=self._keeping(store.positions))

    def start(self) -> None:
        """Check the destination's settings and begin to carry; the broker calls it.

        Raises:
            ConfigError: The destination's settings are not safe; the message says what to write instead.
        """
        if self._lanes:
            return
        runtime = self._config.runtime
        taken, pauses = self.taken_queues, runtime.pauses
        self._pause.is_stored = lambda: pauses.has_forwarder(self.name) or all(map(pauses.has_queue, taken))
        keeping, lanes = self._keeping(runtime.store.positions), self._lane_count
        made = self._made = self._create_destinations(runtime.log, lanes=lanes, keeping=keeping)
        name, health, send_timeout, destinations, self._outages, is_divided, *_ = made
        patience = Patience(health, runtime.log, send_timeout)
        server = server_attributes(server_addresses(self.to))
        self._destinations = [
            PatientDestination(
                TracedDestination(one, name, client=f"{self._name or name}-{number}", server=server), patience
            )
            for number, one in enumerate(destinations)
        ]
        self._name = self._name or name
        more = ", ..." if len(self._queues) > _SHOWN else ""
        route = f"carries {', '.join(map(repr, self.taken_queues[:_SHOWN]))}{more} to {name}"
        # Where all rows are for one part, none is in another one's way.
        deferrer = Deferrer(self._outages if is_divided or self._prepare is not None else None)
        breaker = Breaker(
            health,
            self._lane_count,
            on_reached=lambda: runtime.log(logging.INFO, f"forwarder {self.name!r} is connected: it {route}", None),
            are_parts_down=lambda: deferrer.are_parts_down or bool(self._outages.down()),
        )
        remembered = Remembered(
            self.name, runtime.log, runtime.store.explain, in_flight=self._lane_count * self._batch_size
        )
        team = self._team = Team(
            breaker, self._pause, remembered=remembered, deferrer=deferrer, name=self.name, address=name
        )
        # By then this lane, if it is still there, or PostgreSQL has given up a hand-over.
        patience_of_others = send_timeout + SETTLE_SECONDS + DATABASE_SECONDS
        self._guarded = runtime.guard(self.taken_queues, patience_of_others, is_wanted=lambda: not self._pause.is_on)
        self._watched = runtime.remind_of(health, self.taken_queues, is_wanted=lambda: not self._pause.is_on)
        self._lanes = [
            runtime.lane(
                f"{self.name}-{number}",
                self.taken_queues,
                destination,
                team,
                self._failure,
                batch_size=self._batch_size,
                batch_bytes=self._batch_bytes,
                # The destination keeps to the time-out itself, and then still gives the verdicts that it has.
                send_timeout=send_timeout + SETTLE_SECONDS,
                prepare=self._prepare,
                positions=inner.positions if isinstance(inner, Positioned) else None,
                min_interval=self._min_interval,
                max_interval=self._max_interval,
            )
            for number, (inner, destination) in enumerate(zip(destinations, self._destinations, strict=True))
        ]
        for lane in self._lanes:
            lane.start()
        pauses.watch(self._look_at_pauses)

    def _keeping(self, store: PositionStore | None) -> PositionKeeper | None:
        if not self.exactly_once:
            return None
        if store is None:
            msg = (
                "exactly_once: there is no table for positions; write "
                "OutboxBroker(engine, outbox_table=..., position_table=make_position_table(metadata)), and create it"
            )
            raise ConfigError(msg)
        return PositionKeeper(lambda: self.name, store)

    def _create_destinations(self, log: Log, *, lanes: int, keeping: PositionKeeper | None = None) -> Destinations:
        made = create_destinations(
            self.to,
            log,
            lanes=lanes,
            send_timeout=self._send_timeout,
            allow_lossy=self._allow_lossy,
            envelope=self._envelope,
            tombstones=self._tombstones,
            count_nacks=self._count_nacks,
            exactly_once=keeping,
        )
        destination_of = self._config.destination_of
        return made if destination_of is None else made._replace(lanes=[destination_of(self.to) for _ in made.lanes])

    async def stop(self, grace: float) -> None:
        """Take no more rows, let hand-overs finish for up to ``grace`` seconds, give back what is cut off.

        A hand-over that is cut off still writes what its destination has acknowledged. Outcomes that the database could
        not write before are tried again: until it answers, or the time is over. The log says how many are given up.
        """
        for destination in self._destinations:
            destination.finish(grace)
        if self._watched is not None:
            self._config.runtime.forget(self._watched)
            self._watched = None
        if self._lanes:
            self._config.runtime.pauses.forget(self._look_at_pauses)
        if self._guarded is not None:
            self._config.runtime.unguard(self._guarded)
            self._guarded = None
        # Kept until the stop has returned: a second one that meets it waits for it too.
        await asyncio.gather(*(lane.stop(grace + SETTLE_SECONDS) for lane in self._lanes))
        if self._team is not None:
            self._team.remembered.give_up()
        self._lanes = []
        self._pause.detach()

    async def close(self) -> None:
        """Release the destination, after all forwarders have stopped."""
        destinations, self._destinations = self._destinations, ()
        await asyncio.gather(*(destination.close() for destination in destinations))


def _checked_name(name: Any) -> str | None:
    if name is None or (isinstance(name, str) and name):
        return name
    msg = f"name: must be a str that is not empty, or None, got {name!r}"
    raise ConfigError(msg)
