"""An exchange as the destination of one lane."""

from collections.abc import Sequence
from typing import ClassVar

from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.connected import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.rabbit.client import RabbitClient
from faststream_outbox.forwarders.rabbit.outages import Outages
from faststream_outbox.forwarders.rabbit.sending import Sending
from faststream_outbox.forwarders.rabbit.settings import MAX_ROUTING_KEY_BYTES, RabbitSettings
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError
from faststream_outbox.forwarders.suspects import Suspects


class RabbitDestination(ConnectedDestination[RabbitClient]):
    """Looks before it sends again when RabbitMQ has said that it does not read from those who publish.

    Args:
        settings: The exchange, and how to reach it.
        outages: What its lanes know of queues that take nothing.
        suspects: See ``ConnectedDestination``.
        send_timeout: See there.
    """

    SERVER: ClassVar[str] = "RabbitMQ"

    def __init__(self, settings: RabbitSettings, outages: Outages, suspects: Suspects, send_timeout: float) -> None:
        super().__init__(suspects, send_timeout)
        self._outages = outages
        self._settings = settings
        self._was_blocked = False

    async def _open(self) -> RabbitClient:
        return await RabbitClient.open(self._settings)

    async def _look(self, client: RabbitClient) -> None:
        if self._was_blocked:
            await client.probe()
            self._was_blocked = False

    def _is_settled(self, client: RabbitClient, error: BaseException) -> bool:
        return client.is_alive and not client.has_unanswered

    def _check_address(self, address: str) -> None:
        if (size := len(address.encode())) > MAX_ROUTING_KEY_BYTES:
            msg = f"a routing key must be at most {MAX_ROUTING_KEY_BYTES} bytes of UTF-8, got {size}"
            raise ValueError(msg)

    async def _hand_over(self, client: RabbitClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        sending = Sending(client, self._settings, self._outages, verdicts)
        await sending.send(parcels)
        self._was_blocked = isinstance(sending.trouble, BlockedError)
