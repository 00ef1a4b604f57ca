"""An exchange as the destination of one lane."""

from collections.abc import Sequence
from typing import Any, ClassVar

from faststream_outbox._values.cloudevents import rabbit_headers
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.forwarders.connected_destination import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.kinds import Address, Wishes
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.rabbit.client import RabbitClient
from faststream_outbox.forwarders.rabbit.sending import MessageSender
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

    async def _send(self, client: RabbitClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        sender = MessageSender(client, self._settings, self._outages, verdicts)
        await sender.send(parcels)
        self._was_blocked = isinstance(sender.trouble, BlockedError)


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``RabbitBroker``.

    Raises:
        ConfigError: Its settings are not safe.
    """
    wishes.refuse("RabbitMQ", "tombstones", "exactly_once")
    wishes.refuse_envelopes("RabbitMQ", but="cloudevents")
    headers_of = rabbit_headers if wishes.envelope else wire_headers
    settings = RabbitSettings.of(publisher, headers_of, allow_lossy=wishes.allow_lossy, count_nacks=wishes.count_nacks)
    suspects, outages = Suspects(), Outages()
    return Address(
        f"rabbit:{settings.address}",
        settings.confirm_timeout,
        lambda seconds: RabbitDestination(settings, outages, suspects, seconds),
        outages,
    )
