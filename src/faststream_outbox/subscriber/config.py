"""What a subscriber is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from faststream.middlewares import AckPolicy

from faststream_outbox._faststream import EMPTY, SubscriberSpecificationConfig, SubscriberUsecaseConfig
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.retry import RetryStrategy


@dataclass(kw_only=True)
class OutboxSubscriberConfig(SubscriberUsecaseConfig):
    """The parts that consuming needs, checked when the subscriber is declared."""

    queues: Sequence[str]
    retry_strategy: RetryStrategy
    max_workers: int = 1
    fetch_batch_size: int = 10
    min_fetch_interval: float = 1.0
    max_fetch_interval: float = 10.0
    lease_ttl_seconds: float = 60.0
    max_deliveries: int | None = None
    propagate_inbound_headers: bool = False

    def __post_init__(self) -> None:
        _require("max_workers", self.max_workers, at_least=1)
        _require("fetch_batch_size", self.fetch_batch_size, at_least=1)
        _require("min_fetch_interval", self.min_fetch_interval, at_least=0.01)
        _require("max_fetch_interval", self.max_fetch_interval, at_least=self.min_fetch_interval)
        _require("lease_ttl_seconds", self.lease_ttl_seconds, at_least=0.1)
        if self.max_deliveries is not None:
            _require("max_deliveries", self.max_deliveries, at_least=1)
        if self.ack_policy is AckPolicy.ACK_FIRST:
            msg = (
                "ack_policy: ACK_FIRST would lose the message when the handler fails or its process dies; "
                "use AckPolicy.ACK to drop messages whose handler raised"
            )
            raise ConfigError(msg)

    @property
    def ack_policy(self) -> AckPolicy:
        for policy in (self._ack_policy, self._outer_config.ack_policy):
            if policy is not EMPTY:
                return policy
        return AckPolicy.NACK_ON_ERROR


@dataclass(kw_only=True)
class OutboxSubscriberSpecificationConfig(SubscriberSpecificationConfig):
    """The parts that AsyncAPI needs."""

    queues: Sequence[str]


def _require(option: str, value: float, *, at_least: float) -> None:
    if not value >= at_least:
        msg = f"{option}: must be at least {at_least}, got {value!r}"
        raise ConfigError(msg)
