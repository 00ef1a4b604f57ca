"""What a publisher is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from faststream_outbox._faststream import PublisherSpecificationConfig, PublisherUsecaseConfig


@dataclass(kw_only=True)
class OutboxPublisherConfig(PublisherUsecaseConfig):
    """The parts that publishing needs."""

    queue: str
    headers: Mapping[str, str]


@dataclass(kw_only=True)
class OutboxPublisherSpecificationConfig(PublisherSpecificationConfig):
    """The parts that AsyncAPI needs."""

    queue: str
