"""The rows of one hand-over: confirmed one by one for each key, all keys at once."""

import asyncio
from collections import deque
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Protocol, TypeAlias

from aiormq.exceptions import ChannelInvalidStateError

from faststream_outbox._engine.service import is_cancelled
from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.rabbit.properties import Properties, properties_of
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.suspects import Suspects
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError, Meaning, meaning, poison

MOST_IN_FLIGHT = 256
LOOK_SECONDS = 0.5
"""How often a hand-over without answers looks whether there is an alarm."""

Chain: TypeAlias = deque[OutboxRow]
"""Rows of one key in their order."""


class Publishing(Protocol):
    """What sending needs of a client."""

    @property
    def max_frame_size(self) -> int:
        """Bytes of the largest frame; 0: no limit."""

    async def is_blocked(self) -> bool:
        """Tell whether there is an alarm."""

    async def publish(self, body: bytes, properties: Properties) -> None:
        """Send a message; raise unless a queue has it."""


class Sending:
    """The next row of a key is sent when the one before is confirmed: RabbitMQ goes on behind one that it refuses.

    Args:
        client: Publishes messages.
        settings: How they are made.
        suspects: Rows that must have the connection for themselves.
        verdicts: Takes a verdict for each row, under the row's id, as soon as it is known.
    """

    def __init__(
        self,
        client: Publishing,
        settings: RabbitSettings,
        suspects: Suspects,
        verdicts: MutableMapping[int, Verdict],
    ) -> None:
        self.trouble: BaseException | None = None
        """Why it has ended before all rows were sent."""
        self.meaning: Meaning | None = None
        """Of the trouble."""
        self.in_flight: set[int] = set()
        """Ids of the rows that are sent and have no answer."""
        self._client = client
        self._settings = settings
        self._suspects = suspects
        self._verdicts = verdicts

    async def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send rows; one without a verdict afterwards stands behind another one of its key, or behind the trouble."""
        ready = deque(_chains(rows))
        alone: list[OutboxRow] = []
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work(ready, alone)) for _ in range(min(len(ready), MOST_IN_FLIGHT))]
            await self._watch(workers)
        for row in alone:
            if self.trouble is not None:
                return
            await self._send_alone(row)

    async def _watch(self, workers: Iterable[asyncio.Task[None]]) -> None:
        """Wait for workers; cut them off when there is an alarm, since RabbitMQ may not read for hours."""
        pending = set(workers)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=LOOK_SECONDS)
            if pending and await self._client.is_blocked():
                self._note_trouble(BlockedError(), Meaning.OUTAGE)
                for worker in pending:
                    worker.cancel()
                return

    async def _work(self, ready: deque[Chain], alone: list[OutboxRow]) -> None:
        while ready:
            chain = ready.popleft()
            while chain and self.trouble is None:
                row = chain.popleft()
                if self._suspects.is_sent_alone(row):
                    # What comes behind it waits for the next hand-over.
                    alone.append(row)
                    break
                if not isinstance(await self._send(row), Accepted | Poison):
                    break

    async def _send_alone(self, row: OutboxRow) -> None:
        if (sentence := self._suspects.sentence(row)) is not None:
            self._note(row, sentence)
        elif await self._send(row) is None and self.meaning is Meaning.POISON_AMONG_THEM and self.trouble is not None:
            self._note(row, poison(self.trouble))

    async def _send(self, row: OutboxRow) -> Verdict | None:
        """Send a row; None when there is no answer and nothing more can be sent now."""
        verdict = await self._publish(row)
        if verdict is not None:
            self._note(row, verdict)
        return verdict

    async def _publish(self, row: OutboxRow) -> Verdict | None:
        try:
            properties = self._properties(row)
        except (TypeError, ValueError) as error:
            return Poison(Reason.INVALID, error)
        limit = self._client.max_frame_size
        if 0 < limit < properties.frame_size:
            problem = f"the headers and properties have {properties.frame_size} bytes, RabbitMQ's frame_max is {limit}"
            return Poison(Reason.TOO_LARGE, ValueError(problem))
        self.in_flight.add(row.id)
        try:
            await self._client.publish(row.payload, properties)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled():
                raise
            return self._read(row, error)
        return Accepted()

    def _read(self, row: OutboxRow, error: BaseException) -> Verdict | None:
        its_meaning = meaning(error)
        if its_meaning is Meaning.REFUSED:
            return Refused(error)
        if isinstance(error, ChannelInvalidStateError):
            self.in_flight.discard(row.id)
        if isinstance(error, asyncio.CancelledError):
            # aiormq's own, when it gives up a connection.
            error = ConnectionError("the connection was given up")
        self._note_trouble(error, its_meaning)
        return None

    def _note_trouble(self, error: BaseException, its_meaning: Meaning) -> None:
        # Those who find the channel closed may come before those who are told why.
        if self.trouble is None or isinstance(self.trouble, ChannelInvalidStateError):
            self.trouble, self.meaning = error, its_meaning

    def _note(self, row: OutboxRow, verdict: Verdict) -> None:
        self._verdicts[row.id] = verdict
        self._suspects.acquit(row)
        self.in_flight.discard(row.id)

    def _properties(self, row: OutboxRow) -> Properties:
        settings = self._settings
        return properties_of(
            row, headers=settings.headers, content_type=settings.content_type, properties=settings.properties
        )


def _chains(rows: Iterable[OutboxRow]) -> list[Chain]:
    """Part rows by key; each row without one is on its own.

    An idempotency key is in flight only once: aiormq tells returned messages apart by it and would mix up the answers.
    The second row with one, and what comes behind it, is left for the next hand-over.
    """
    chains: list[Chain] = []
    by_key: dict[str, Chain] = {}
    held_keys: set[str] = set()
    seen: set[str] = set()
    for row in rows:
        if row.idempotency_key in seen or row.key in held_keys:
            if row.key is not None:
                held_keys.add(row.key)
            continue
        seen.add(row.idempotency_key)
        if row.key is not None and row.key in by_key:
            by_key[row.key].append(row)
            continue
        chain = deque([row])
        chains.append(chain)
        if row.key is not None:
            by_key[row.key] = chain
    return chains
