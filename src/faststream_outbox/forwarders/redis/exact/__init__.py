"""Exactly once into Redis: see ``docs/exactly-once.md``.

``marker`` decides, and does nothing else: the model in the tests drives it through deaths, delayed bytes and
fail-overs. ``take_once.lua`` is the one step in which messages and marker are written.
"""

from faststream_outbox._engine.health import Log
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.kinds import Address, PositionKeeper
from faststream_outbox.forwarders.redis.eviction import EvictionWarning
from faststream_outbox.forwarders.redis.exact.destination import ExactRedisDestination
from faststream_outbox.forwarders.redis.exact.positions import Markers
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.suspects import Suspects


def address_of(
    settings: RedisSettings, eviction: EvictionWarning, suspects: Suspects, keeping: PositionKeeper, log: Log
) -> Address:
    """Return a stream or a list as a destination that takes each row once.

    Raises:
        ConfigError: It is a channel.
    """
    if settings.holds is None:
        msg = (
            f"exactly_once: a channel keeps nothing, so nobody can find out what {settings.address!r} was sent; leave "
            "it out, or write redis.publisher(stream=...) or redis.publisher(list=...)"
        )
        raise ConfigError(msg)
    markers = Markers(keeping.forwarder, keeping.store, log)
    return Address(
        f"redis:{settings.address}",
        settings.usual_timeout,
        lambda seconds: ExactRedisDestination(settings, eviction, suspects, seconds, markers),
        maybe_repeated=lambda: markers.maybe_repeated,
        maybe_lost=lambda: markers.maybe_lost,
    )
