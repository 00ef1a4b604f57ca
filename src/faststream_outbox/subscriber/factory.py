"""Puts a subscriber together."""

from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import Unpack

from faststream_outbox._faststream import EMPTY
from faststream_outbox._values.limits import check_queue
from faststream_outbox.checks import check_options
from faststream_outbox.exceptions import ConfigError, InvalidMessageError
from faststream_outbox.retry import DEFAULT_RETRY, as_strategy
from faststream_outbox.subscriber.config import OutboxSubscriberConfig, OutboxSubscriberSpecificationConfig
from faststream_outbox.subscriber.options import SubscriberOptions
from faststream_outbox.subscriber.specification import OutboxSubscriberSpecification
from faststream_outbox.subscriber.usecase import Handlers, OutboxSubscriber

_PASSED_ON = frozenset(
    {
        "max_workers",
        "fetch_batch_size",
        "min_fetch_interval",
        "max_fetch_interval",
        "lease_ttl_seconds",
        "max_deliveries",
        "propagate_inbound_headers",
        "retry_validation_errors",
        "no_reply",
    }
)


def create_subscriber(
    queues: str | Sequence[str],
    *,
    config: Any,
    **options: Unpack[SubscriberOptions],
) -> OutboxSubscriber:
    """Return a subscriber of one or more queues.

    Args:
        queues: Queue names, without prefixes.
        config: The configuration of the broker or router that it stands on.
        **options: See ``SubscriberOptions``.

    Raises:
        ConfigError: A queue's name or an option cannot work.
        TypeError: There is no such option.
    """
    check_options("subscriber", options, SubscriberOptions)
    names = as_queues(queues)
    retry = options.get("retry_strategy")
    passed_on: dict[str, Any] = {name: value for name, value in options.items() if name in _PASSED_ON}
    subscriber_config = OutboxSubscriberConfig(
        _outer_config=config,
        _ack_policy=options.get("ack_policy") or EMPTY,
        queues=names,
        retry_strategy=DEFAULT_RETRY if retry is None else as_strategy(retry),
        **passed_on,
    )
    calls = Handlers()
    specification = OutboxSubscriberSpecification(
        config,
        OutboxSubscriberSpecificationConfig(
            queues=names,
            title_=options.get("title"),
            description_=options.get("description"),
            include_in_schema=options.get("include_in_schema", True),
        ),
        calls,
    )
    return OutboxSubscriber(subscriber_config, specification, calls)


def as_queues(queues: str | Sequence[str]) -> list[str]:
    """Check one or more queue names and make them a list."""
    given: Any = queues
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        msg = f"queues: must be a str or several, got {type(given).__name__}"
        raise ConfigError(msg)
    names = [queues] if isinstance(queues, str) else list(queues)
    if not names:
        msg = "queues: give at least one queue"
        raise ConfigError(msg)
    for name in names:
        try:
            check_queue(name)
        except InvalidMessageError as error:
            raise ConfigError(str(error)) from None
    if len(set(names)) != len(names):
        msg = f"queues: {names} names a queue twice"
        raise ConfigError(msg)
    return names
