"""Puts a publisher together."""

from typing import Any

from typing_extensions import Unpack

from faststream_outbox.checks import check_options
from faststream_outbox.publisher.config import OutboxPublisherConfig, OutboxPublisherSpecificationConfig
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.publisher.specification import OutboxPublisherSpecification
from faststream_outbox.publisher.usecase import OutboxPublisher
from faststream_outbox.response import merge_headers


def create_publisher(queue: str, *, config: Any, **options: Unpack[PublisherOptions]) -> OutboxPublisher:
    """Return a publisher for a queue.

    Args:
        queue: The queue's name, without prefixes.
        config: The configuration of the broker or router that it stands on.
        **options: See ``PublisherOptions``.

    Raises:
        TypeError: There is no such option.
        InvalidMessageError: ``headers`` is not a mapping.
    """
    check_options("publisher", options, PublisherOptions)
    specification = OutboxPublisherSpecification(
        _outer_config=config,
        specification_config=OutboxPublisherSpecificationConfig(
            queue=queue,
            title_=options.get("title"),
            description_=options.get("description"),
            schema_=options.get("schema"),
            include_in_schema=options.get("include_in_schema", True),
        ),
    )
    publisher_config = OutboxPublisherConfig(
        _outer_config=config,
        queue=queue,
        headers=merge_headers(options.get("headers")),
    )
    return OutboxPublisher(publisher_config, specification)
