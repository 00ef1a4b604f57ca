"""The part of the door that needs the Redis client to be installed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faststream.redis import RedisBroker
from faststream.redis.configs import RedisSentinelConnectionState

__all__ = ("SentinelAddress", "sentinel_of")


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Who to ask for the server."""

    sentinels: Sequence[tuple[str, int]]
    master_name: str
    sentinel_kwargs: Mapping[str, Any] | None = field(repr=False)
    """With passwords."""


def sentinel_of(broker: RedisBroker) -> SentinelAddress | None:
    """Return the sentinels that a broker asks for its server, or None if it knows the server."""
    state = broker.config.broker_config.connection
    if isinstance(state, RedisSentinelConnectionState):
        return SentinelAddress(state._sentinels, state._master_name, state._sentinel_kwargs)
    return None
