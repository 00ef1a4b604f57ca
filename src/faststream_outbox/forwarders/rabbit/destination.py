"""An exchange as the destination of one lane."""

from collections.abc import Sequence

from aiormq.exceptions import AMQPChannelError

from faststream_outbox._engine.health import Health
from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.rabbit.client import RabbitClient
from faststream_outbox.forwarders.rabbit.sending import Sending
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.suspects import Suspects
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError, Meaning


class RabbitDestination:
    """Sends the hand-overs of one lane, on a connection of its own, which it gives up when an answer is missing.

    Args:
        settings: The exchange, and how to reach it.
        health: Of the exchange; its lanes share it.
        suspects: Of the exchange; its lanes share them.
        send_timeout: Seconds for one hand-over.
    """

    def __init__(self, settings: RabbitSettings, health: Health, suspects: Suspects, send_timeout: float) -> None:
        self.health = health
        self._settings = settings
        self._suspects = suspects
        self._deadline = Deadline(send_timeout)
        self._client: RabbitClient | None = None
        self._was_blocked = False
        self._accused: set[int] = set()
        """The rows in flight when the last connection broke."""

    async def connect(self) -> None:
        if self._client is not None and self._client.is_closed:
            await self._abandon()
        if self._client is None:
            self._client = await self._open()
        if self._was_blocked:
            await self._client.probe()
            self._was_blocked = False

    async def _open(self) -> RabbitClient:
        accused, self._accused = self._accused, set()
        try:
            return await RabbitClient.open(self._settings)
        except BaseException:
            # A server that is there at the first attempt has not crashed: it was the connection alone that broke.
            self._suspects.forgive(accused)
            raise

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        rows = [parcel.row for parcel in parcels]
        if self._client is None:
            return [Unsent(ConnectionError("not connected"))] * len(rows)
        verdicts: dict[int, Verdict] = {}
        sending = Sending(self._client, self._settings, self._suspects, verdicts)
        waiting = Unsent()
        try:
            async with self._deadline.hand_over():
                await sending.send(rows)
        except TimeoutError:
            waiting = Unsent(TimeoutError("no answer in time; it is not known whether RabbitMQ has the row"))
            await self._abandon()
        except BaseException:
            await self._abandon()
            raise
        if sending.trouble is not None:
            waiting = self._after_trouble(sending, sending.trouble)
            if isinstance(sending.trouble, AMQPChannelError):
                # What is on its way to a channel that RabbitMQ has closed is void.
                await self.close()
            else:
                await self._abandon()
        return [verdicts.get(row.id, waiting) for row in rows]

    def _after_trouble(self, sending: Sending, trouble: BaseException) -> Unsent:
        if sending.meaning is Meaning.POISON_AMONG_THEM:
            # No outage: RabbitMQ is well, and in the next hand-over each of these rows is sent alone.
            self._suspects.accuse(sending.in_flight, trouble, certain=True)
            return Unsent()
        if sending.meaning is Meaning.SUSPECT:
            self._accused = sending.in_flight
            self._suspects.accuse(sending.in_flight, trouble)
        self._was_blocked = isinstance(trouble, BlockedError)
        return Unsent(trouble)

    def finish(self, grace: float) -> None:
        self._deadline.finish(grace)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _abandon(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.abandon()
