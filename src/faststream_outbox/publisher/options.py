"""The options of a publisher, each once, with its type and its meaning."""

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict


class PublisherOptions(TypedDict, total=False):
    """Options of ``broker.publisher(queue, ...)``."""

    headers: Mapping[str, str] | None
    """Headers of every message. Default: none."""

    title: str | None
    """The publisher's name in AsyncAPI. Default: the queue's name."""

    description: str | None
    """The publisher's description in AsyncAPI."""

    schema: Any
    """The type of the messages in AsyncAPI. Default: what the decorated handler returns."""

    include_in_schema: bool
    """Whether AsyncAPI lists it. Default: True."""
