"""A stream, list or channel as the destination of one lane."""

from collections.abc import Sequence

from faststream_outbox._engine.health import Health
from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.redis.client import RedisClient, Session
from faststream_outbox.forwarders.redis.sending import Sending
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError


class RedisDestination:
    """Sends the hand-overs of one lane, on a connection of its own.

    Args:
        settings: The address, and how to reach it.
        health: Of the address; its lanes share it.
        send_timeout: Seconds for one hand-over.
    """

    def __init__(self, settings: RedisSettings, health: Health, send_timeout: float) -> None:
        self.health = health
        self._settings = settings
        self._deadline = Deadline(send_timeout)
        self._client: RedisClient | None = None
        self._abandoned: Session | None = None
        self._is_ready = False

    async def connect(self) -> None:
        if self._is_ready and self._client is not None and self._client.is_alive:
            return
        self._is_ready = False
        try:
            if self._client is not None and not self._client.is_alive:
                # A server that has been idle or restarted closes connections; that is no trouble if it can be reached.
                await self._drop()
            if self._client is None:
                self._client = await RedisClient.open(self._settings, self._abandoned)
                self._abandoned = self._client.session
            await self._client.probe()
        except BaseException as error:
            await self._after_trouble(error)
            raise
        self._is_ready = True

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        rows = [parcel.row for parcel in parcels]
        client = self._client
        if client is None:
            return [Unsent(ConnectionError("not connected"))] * len(rows)
        verdicts: dict[int, Verdict] = {}
        try:
            async with self._deadline.hand_over():
                await Sending(client, self._settings, verdicts).send(rows)
        except TimeoutError:
            # What was acknowledged by now stays so.
            pass
        except BaseException as error:
            await self._after_trouble(error)
            raise
        unknown = Unsent(TimeoutError("no answer in time; it is not known whether Redis has the row"))
        answer = [verdicts.get(row.id, unknown) for row in rows]
        for trouble in {verdict.exception for verdict in answer if isinstance(verdict, Unsent)} - {None}:
            await self._after_trouble(trouble)
        return answer

    def finish(self, grace: float) -> None:
        self._deadline.finish(grace)

    async def close(self) -> None:
        self._is_ready = False
        await self._drop()

    async def _after_trouble(self, error: BaseException | None) -> None:
        """Look again before the next hand-over; start over if it is not sure that everything sent has an answer."""
        self._is_ready = False
        if not isinstance(error, RedisAnswerError):
            await self._drop()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
