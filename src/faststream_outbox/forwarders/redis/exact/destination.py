"""A stream or a list as the destination of one lane that sends exactly once."""

from collections.abc import Sequence

from faststream_outbox._values.outcome import Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.doubt import InDoubtError
from faststream_outbox.forwarders.redis.client import RedisClient
from faststream_outbox.forwarders.redis.destination import RedisDestination
from faststream_outbox.forwarders.redis.eviction import EvictionWarning
from faststream_outbox.forwarders.redis.exact.marker import PREFIX
from faststream_outbox.forwarders.redis.exact.positions import DoubtfulServerError, LaneMarkers, Markers
from faststream_outbox.forwarders.redis.exact.sending import ExactSender
from faststream_outbox.forwarders.redis.packing import Command
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError
from faststream_outbox.forwarders.suspects import Suspects

PROBE = f"{PREFIX}probe"
"""The name of a marker that there never is."""

COMMANDS: Sequence[Command] = (
    ("EVAL", "return 1", 0),
    ("LINDEX", PROBE, -1),
    ("LRANGE", PROBE, 0, -1),
    ("RPUSH", PROBE, b""),
    ("LTRIM", PROBE, 0, 0),
)
"""What a marker takes, beside the command that sends messages."""

RIGHTS = (
    f"exactly_once needs the commands EVAL, LINDEX, LRANGE, RPUSH and LTRIM on keys {PREFIX}* (ACL +eval +lindex "
    f"+lrange +rpush +ltrim ~{PREFIX}*), beside those that send messages: {{error}}"
)

OLDEST = 7
"""Older ones replicate scripts instead of their effects."""


class UnfitServerError(Exception):
    """The server cannot take messages exactly once."""


class ExactRedisDestination(RedisDestination):
    """Sends each message in one step with the marker of its shard: see ``docs/exactly-once.md``.

    Args:
        settings: See ``RedisDestination``.
        eviction: See there.
        suspects: See there.
        send_timeout: See there.
        markers: What the lanes of the forwarder know of its shards.
    """

    def __init__(
        self,
        settings: RedisSettings,
        eviction: EvictionWarning,
        suspects: Suspects,
        send_timeout: float,
        markers: Markers,
    ) -> None:
        super().__init__(settings, eviction, suspects, send_timeout)
        self.positions = LaneMarkers(markers)

    async def _open(self) -> RedisClient:
        client = await super()._open()
        self.positions.client = client
        return client

    async def _look(self, client: RedisClient) -> None:
        _check_server(client)
        await super()._look(client)
        try:
            await client.probe(*COMMANDS)
        except RedisAnswerError as error:
            if not error.reply.startswith("NOPERM"):
                raise
            raise PermissionError(RIGHTS.format(error=error)) from error

    async def _drop(self) -> None:
        self.positions.client = None
        await super()._drop()

    def _is_settled(self, client: RedisClient, error: BaseException) -> bool:
        # Whether a server lacks something is seen over a new connection, which may be to another one.
        is_doubt = isinstance(error, InDoubtError) and not isinstance(error, DoubtfulServerError)
        return is_doubt or super()._is_settled(client, error)

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        try:
            return await super().send(parcels)
        except BaseException:
            # Messages that were taken have lost their verdicts: their rows are to be found, not sent again.
            self.positions.begin()
            raise

    async def _send(self, client: RedisClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        await ExactSender(client, self._settings, verdicts, self.positions).send_parcels(parcels)


def _check_server(client: RedisClient) -> None:
    """Raise where the server cannot do it; one that does not tell what it is may."""
    about = client.server
    if "cluster" in (about.get("redis_mode"), about.get("server_mode")):
        msg = (
            "exactly_once is not for Redis Cluster, where a marker and a stream cannot be written in one step unless "
            "they lie in one slot; leave it out, or use a server without it, or Sentinel"
        )
        raise UnfitServerError(msg)
    version = about.get("redis_version", "")
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) < OLDEST:
        msg = f"exactly_once needs Redis {OLDEST} or newer, or Valkey; this is Redis {version}"
        raise UnfitServerError(msg)
