"""The rows of one hand-over: confirmed one by one for each key, all keys at once."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from typing import Protocol

from aiormq.exceptions import ChannelInvalidStateError

from faststream_outbox._engine.service import is_cancelled
from faststream_outbox._values.outcome import ACCEPTED, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.chains import ChainSender
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.rabbit.properties import Properties, properties_of
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.verdicts import (
    BlockedError,
    Meaning,
    QueueOutageError,
    is_of_a_routing_key,
    meaning,
    poison,
)
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, OneOfThemError

LOOK_SECONDS = 0.5
"""How often a hand-over without answers looks whether any can come."""


class Confirmer(Protocol):
    """What sending needs of a client."""

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as that shows on this side."""

    @property
    def max_frame_size(self) -> int:
        """Bytes of the largest frame; 0: no limit."""

    async def is_blocked(self) -> bool:
        """Return whether there is an alarm."""

    async def publish(self, body: bytes, properties: Properties, routing_key: str | None) -> None:
        """Send a message; raise unless a queue has it."""

    async def is_node_down(self, queue: str) -> bool:
        """Return whether a queue exists and its node is down."""


class MessageSender(ChainSender):
    """The next row of a key is sent when the one before is confirmed: RabbitMQ goes on behind one that it refuses.

    Args:
        client: Publishes messages.
        settings: How they are made.
        outages: Knows with which routing keys nothing can be sent now.
        verdicts: See ``ChainSender``.
    """

    def __init__(
        self,
        client: Confirmer,
        settings: RabbitSettings,
        outages: Outages,
        verdicts: MutableMapping[int, Verdict],
    ) -> None:
        super().__init__(verdicts)
        self._meaning: Meaning | None = None
        self._in_flight: dict[int, Parcel] = {}
        """Messages that are sent and have no answer, by the row's id."""
        self._client = client
        self._settings = settings
        self._outages = outages
        self._asking = asyncio.Lock()
        self._are_down: dict[str, bool] = {}
        """Whether the node of a queue that was not found is down, asked once in a hand-over."""

    async def send(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels until all have a verdict; what stands behind trouble, or behind its key, is unsent."""
        await super().send([*_once_each(parcels)])
        self._note_waiting([parcel.row.id for parcel in parcels if parcel.row.id not in self._verdicts])

    def _note_waiting(self, row_ids: Sequence[int]) -> None:
        behind = Unsent()
        verdict = behind if self.trouble is None else self._verdict_in_flight(self.trouble)
        for row_id in row_ids:
            is_met = row_id in self._in_flight or not self._in_flight
            self._verdicts[row_id] = verdict if is_met else behind

    def _verdict_in_flight(self, trouble: BaseException) -> Verdict:
        match self._meaning:
            case Meaning.SUSPECT:
                broken = ConnectionBrokenError(f"{type(trouble).__name__}: {trouble}")
                broken.__cause__ = trouble
                return Unsent(broken)
            case Meaning.POISON_AMONG_THEM:
                return self._on_one_of_them(poison(trouble))
            case Meaning.OUTAGE if is_of_a_routing_key(trouble) and self._goes_elsewhere():
                return self._on_one_of_them(Refused(trouble))
            case _:
                return Unsent(trouble)

    def _on_one_of_them(self, verdict: Poison | Refused) -> Verdict:
        return verdict if len(self._in_flight) == 1 else Unsent(OneOfThemError(verdict))

    def _goes_elsewhere(self) -> bool:
        return any(parcel.address is not None for parcel in self._in_flight.values())

    async def _watch(self, workers: Collection[asyncio.Task[None]]) -> None:
        """Wait for workers; cut them off when no answer can come.

        RabbitMQ may not read for hours while there is an alarm. And when a connection ends, aiormq tells those who wait
        for an answer, but not those who wait for room in its queue, which nobody empties any more.
        """
        pending = set(workers)
        while pending:
            was_alive = self._client.is_alive
            _, pending = await asyncio.wait(pending, timeout=LOOK_SECONDS)
            if not pending:
                return
            if not was_alive:
                # Those who are told why have been told by now.
                self._note_trouble(ConnectionError("the connection was closed"), Meaning.SUSPECT)
            elif await self._client.is_blocked():
                self._note_trouble(BlockedError(), Meaning.OUTAGE)
            else:
                continue
            for worker in pending:
                worker.cancel()
            return

    async def _send(self, parcel: Parcel) -> Verdict | None:
        verdict = await self._publish(parcel)
        if verdict is not None:
            self._verdicts[parcel.row.id] = verdict
            self._in_flight.pop(parcel.row.id, None)
        return verdict

    async def _publish(self, parcel: Parcel) -> Verdict | None:
        row = parcel.row
        try:
            properties = self._properties(row)
        except (ArithmeticError, TypeError, ValueError) as error:
            return Poison(Reason.INVALID, error)
        limit = self._client.max_frame_size
        if 0 < limit < properties.frame_size:
            problem = f"the headers and properties have {properties.frame_size} bytes, RabbitMQ's frame_max is {limit}"
            return Poison(Reason.TOO_LARGE, ValueError(problem))
        routing_key = self._settings.routing_key if parcel.address is None else parcel.address
        if self._outages and (outage := self._outages.keeps_back(routing_key)) is not None:
            return Unsent(outage, routing_key)
        self._in_flight[row.id] = parcel
        try:
            await self._client.publish(row.payload, properties, parcel.address)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                raise
            return await self._read(row, routing_key, error)
        if self._outages:
            self._outages.taken(routing_key)
        return ACCEPTED

    async def _read(self, row: OutboxRow, routing_key: str, error: BaseException) -> Verdict | None:
        its_meaning = meaning(error)
        if its_meaning in (Meaning.REFUSED, Meaning.QUEUE_DOWN):
            outage = await self._outage(routing_key, its_meaning)
            if outage is None or self._settings.count_nacks:
                return Refused(error)
            self._outages.failed(routing_key, outage)
            return Unsent(outage, routing_key)
        if isinstance(error, ChannelInvalidStateError):
            self._in_flight.pop(row.id, None)
        if isinstance(error, asyncio.CancelledError):
            # aiormq's own, when it gives up a connection.
            error = ConnectionError("the connection was given up")
        self._note_trouble(error, its_meaning)
        return None

    async def _outage(self, routing_key: str, its_meaning: Meaning) -> QueueOutageError | None:
        """Return what is wrong with the queue that has not taken a message, unless there is none."""
        if its_meaning is Meaning.QUEUE_DOWN:
            return QueueOutageError.of_nack(self._settings.exchange.name, routing_key)
        queue = self._queue_behind(routing_key)
        if not queue:
            return None
        async with self._asking:
            if queue not in self._are_down:
                self._are_down[queue] = await self._is_node_down(queue)
        return QueueOutageError.of_node(queue) if self._are_down[queue] else None

    def _queue_behind(self, routing_key: str) -> str:
        """Return the queue that can be asked about, or nothing."""
        if not self._settings.exchange.name:
            return routing_key
        # AMQP does not tell which queues are bound to an exchange. That of the publisher has a name.
        return self._settings.queue if routing_key == self._settings.routing_key else ""

    async def _is_node_down(self, queue: str) -> bool:
        try:
            return await self._client.is_node_down(queue)
        except (Exception, asyncio.CancelledError):  # that the connection has broken is seen by what is in flight
            if is_cancelled():
                raise
            return False

    def _note_trouble(self, error: BaseException, its_meaning: Meaning) -> None:
        # Those who find the channel closed may come before those who are told why.
        if self.trouble is None or isinstance(self.trouble, ChannelInvalidStateError):
            self.trouble, self._meaning = error, its_meaning

    def _properties(self, row: OutboxRow) -> Properties:
        settings = self._settings
        return properties_of(
            row,
            headers=settings.headers,
            headers_of=settings.headers_of,
            content_type=settings.content_type,
            properties=settings.properties,
        )


def _once_each(parcels: Iterable[Parcel]) -> Iterator[Parcel]:
    """Leave out the second parcel with an idempotency key, and what comes behind it, for the next hand-over.

    Such a key is in flight only once: aiormq tells returned messages apart by it and would mix up the answers.
    """
    held_keys: set[str | None] = set()
    seen: set[str] = set()
    for parcel in parcels:
        key, idempotency_key = parcel.row.key, parcel.row.idempotency_key
        if idempotency_key in seen or (key is not None and key in held_keys):
            held_keys.add(key)
            continue
        seen.add(idempotency_key)
        yield parcel
