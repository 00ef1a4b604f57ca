"""A stream, list or channel as the destination of one lane."""

from collections.abc import Sequence
from typing import Any, ClassVar

from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.connected_destination import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.kinds import Address, Wishes
from faststream_outbox.forwarders.redis.client import RedisClient, Session
from faststream_outbox.forwarders.redis.eviction import EvictionWarning
from faststream_outbox.forwarders.redis.sending import TransactionSender
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import OF_A_ROLE, RedisAnswerError
from faststream_outbox.forwarders.suspects import Suspects


class RedisDestination(ConnectedDestination[RedisClient]):
    """Lets the server close the connection before, if there was trouble with it, as soon as there is a new one.

    Args:
        settings: The address, and how to reach it.
        eviction: Looks at each server; the lanes share it.
        suspects: See ``ConnectedDestination``.
        send_timeout: See there.
    """

    SERVER: ClassVar[str] = "Redis"

    def __init__(
        self, settings: RedisSettings, eviction: EvictionWarning, suspects: Suspects, send_timeout: float
    ) -> None:
        super().__init__(suspects, send_timeout)
        self._settings = settings
        self._eviction = eviction
        self._sessions: tuple[Session | None, Session | None] = (None, None)
        """That of the connection before, and that of the last one."""

    async def _open(self) -> RedisClient:
        _, abandoned = self._sessions
        client = await RedisClient.open(self._settings, abandoned)
        self._sessions = (abandoned, client.session)
        # A channel keeps nothing that could be evicted.
        if self._settings.holds is not None:
            self._eviction.look(client.memory)
        return client

    async def _has_stayed(self, client: RedisClient) -> bool:
        before, now = self._sessions
        return before is None or now is None or before.run == now.run

    async def _look(self, client: RedisClient) -> None:
        await client.probe()

    def _is_settled(self, client: RedisClient, error: BaseException) -> bool:
        return isinstance(error, RedisAnswerError) and not error.reply.startswith(OF_A_ROLE)

    async def _send(self, client: RedisClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        await TransactionSender(client, self._settings, verdicts).send_parcels(parcels)


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``RedisBroker``.

    Raises:
        ConfigError: Its settings are not safe.
    """
    wishes.refuse("Redis", "tombstones", "count_nacks")
    wishes.refuse_envelopes("Redis", but="plain")
    is_plain = wishes.envelope == "plain"
    settings, suspects = RedisSettings.of(publisher, allow_lossy=wishes.allow_lossy, is_plain=is_plain), Suspects()
    eviction = EvictionWarning(wishes.log, settings.address)
    if wishes.exactly_once is not None:
        # It is a destination of this kind, and more.
        from faststream_outbox.forwarders.redis import exact  # noqa: PLC0415

        return exact.address_of(settings, eviction, suspects, wishes.exactly_once, wishes.log)
    return Address(
        f"redis:{settings.address}",
        settings.usual_timeout,
        lambda seconds: RedisDestination(settings, eviction, suspects, seconds),
    )
