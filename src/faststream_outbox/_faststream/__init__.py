"""The one door for FastStream's private names, which move between its releases.

Everything of ``faststream._internal`` that is needed is imported in this folder and nowhere else, so that a new release
of FastStream is a change in one place. Public names are imported from where FastStream publishes them.
"""

from collections.abc import Sequence
from typing import Any, cast

from fast_depends.core import CallModel
from fast_depends.library.serializer import OptionItem, SerializerProto
from faststream._internal.basic_types import LoggerProto, SendableMessage
from faststream._internal.broker import BrokerRouter, BrokerUsecase
from faststream._internal.broker.pub_base import BrokerPublishMixin
from faststream._internal.broker.registrator import Registrator
from faststream._internal.broker.router import ArgsContainer, SubscriberRoute
from faststream._internal.configs import (
    BrokerConfig,
    PublisherSpecificationConfig,
    PublisherUsecaseConfig,
    SubscriberSpecificationConfig,
    SubscriberUsecaseConfig,
)
from faststream._internal.configs import UnderlyingDriverAnnotation as DriverAnnotation
from faststream._internal.constants import EMPTY
from faststream._internal.context import Context, ContextRepo
from faststream._internal.context.resolve import resolve_context_by_name
from faststream._internal.di import FastDependsConfig
from faststream._internal.endpoint.call_wrapper import HandlerCallWrapper
from faststream._internal.endpoint.publisher import PublisherProto, PublisherSpecification, PublisherUsecase
from faststream._internal.endpoint.subscriber import SubscriberSpecification, SubscriberUsecase
from faststream._internal.endpoint.subscriber.call_item import CallsCollection, HandlerItem
from faststream._internal.endpoint.utils import ParserComposition
from faststream._internal.logger import DefaultLoggerStorage, make_logger_state
from faststream._internal.logger.logging import get_broker_logger
from faststream._internal.parser import CodecProto, DefaultCodec
from faststream._internal.producer import ProducerProto
from faststream._internal.types import BrokerMiddleware, CustomCallable, IdGenerator, PublisherMiddleware
from faststream._internal.utils.functions import to_async

from faststream_outbox.exceptions import ConfigError

__all__ = (
    "EMPTY",
    "ArgsContainer",
    "BrokerConfig",
    "BrokerMiddleware",
    "BrokerPublishMixin",
    "BrokerRouter",
    "BrokerUsecase",
    "CallModel",
    "CallsCollection",
    "CodecProto",
    "Context",
    "ContextRepo",
    "CustomCallable",
    "DefaultCodec",
    "DefaultLoggerStorage",
    "DriverAnnotation",
    "FastDependsConfig",
    "HandlerCallWrapper",
    "HandlerItem",
    "IdGenerator",
    "LoggerProto",
    "OptionItem",
    "ParserComposition",
    "ProducerProto",
    "PublisherMiddleware",
    "PublisherProto",
    "PublisherSpecification",
    "PublisherSpecificationConfig",
    "PublisherUsecase",
    "PublisherUsecaseConfig",
    "Registrator",
    "SendableMessage",
    "SubscriberRoute",
    "SubscriberSpecification",
    "SubscriberSpecificationConfig",
    "SubscriberUsecase",
    "SubscriberUsecaseConfig",
    "broker_of",
    "connection_options",
    "forget_connection",
    "get_broker_logger",
    "has_broker",
    "is_connected",
    "make_logger_state",
    "resolve_context_by_name",
    "serializer_of",
    "server_addresses",
    "to_async",
)


def broker_of(publisher: Any) -> BrokerUsecase[Any, Any, Any]:
    """Find the broker that a publisher stands on.

    Raises:
        ConfigError: It stands on a router that no broker has included yet.
    """
    broker = publisher._outer_config.extra_context.get("broker")
    if broker is None:
        msg = (
            f"to: {type(publisher).__name__} stands on a router that is not included in a broker; "
            "call broker.include_router(router) before publishing or starting"
        )
        raise ConfigError(msg)
    return cast("BrokerUsecase[Any, Any, Any]", broker)


def has_broker(publisher: Any) -> bool:
    """Return whether a publisher stands on a broker, or on a router that a broker has included."""
    config = getattr(publisher, "_outer_config", None)
    return config is None or config.extra_context.get("broker") is not None


def server_addresses(publisher: Any) -> Sequence[str]:
    """Return the addresses of a publisher's broker, as its AsyncAPI document names them: without user and password."""
    try:
        urls = broker_of(publisher).specification.url
    except (AttributeError, ConfigError):
        # It is no publisher of a FastStream broker that is known yet.
        return ()
    return [*urls]


def serializer_of(config: BrokerConfig) -> SerializerProto | None:
    """Return a broker's serializer of bodies: its own, or FastStream's default."""
    return config.fd_config._serializer


def connection_options(broker: BrokerUsecase[Any, Any, Any]) -> dict[str, Any]:
    """Return the options with which a broker connects its client."""
    return broker._connection_kwargs


def is_connected(broker: BrokerUsecase[Any, Any, Any]) -> bool:
    """Return whether a broker holds a connection; FastStream has no public name for it."""
    return broker._connection is not None


def forget_connection(broker: BrokerUsecase[Any, Any, Any]) -> None:
    """Forget the connection, so that the next ``connect`` opens a new one; a failed ``stop`` keeps it for ever."""
    broker._connection = None
