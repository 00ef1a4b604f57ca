"""The options of a FastAPI router and its subscribers, each once, with its type and its meaning."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from fastapi import params
from fastapi.routing import APIRoute
from fastapi.types import IncEx
from faststream.specification.base import SpecificationFactory
from faststream.specification.schema import Tag, TagDict
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan
from typing_extensions import TypedDict

from faststream_outbox._faststream import ContextRepo
from faststream_outbox.broker.options import EndpointOptions, OutboxOptions
from faststream_outbox.subscriber.options import ConsumingOptions


class APIRouterOptions(TypedDict, total=False):
    """Options of FastAPI's ``APIRouter``; see its manual."""

    prefix: str
    tags: list[str | Enum] | None
    dependencies: Sequence[params.Depends] | None
    default_response_class: type[Response]
    responses: dict[int | str, dict[str, Any]] | None
    callbacks: list[BaseRoute] | None
    routes: list[BaseRoute] | None
    redirect_slashes: bool
    default: ASGIApp | None
    dependency_overrides_provider: Any
    route_class: type[APIRoute]
    on_startup: Sequence[Callable[[], Any]] | None
    on_shutdown: Sequence[Callable[[], Any]] | None
    lifespan: Lifespan[Any] | None
    deprecated: bool | None
    include_in_schema: bool
    generate_unique_id_function: Callable[[APIRoute], str]


class RouterOptions(OutboxOptions, EndpointOptions, APIRouterOptions, total=False):
    """Options of ``OutboxRouter(engine, outbox_table=..., ...)``: the broker's and FastAPI's."""

    setup_state: bool
    """Whether the lifespan yields the broker into the application's state. Default: True."""

    schema_url: str | None
    """Where the AsyncAPI page is, below the prefix; None: nowhere. With ``.json`` behind it there is the document, with
    ``.yaml`` too where PyYAML is installed. Routers of one application need one each. Default: ``/asyncapi``."""

    specification: SpecificationFactory | None
    """Makes the AsyncAPI document. Default: FastStream's."""

    specification_tags: Iterable[Tag | TagDict]
    """The server's tags in AsyncAPI."""

    context: ContextRepo | None
    """FastStream's context. Default: a new one."""


class RouterSubscriberOptions(ConsumingOptions, total=False):
    """Options of ``router.subscriber(queues, ...)``: the broker's, and FastAPI's for dependencies and responses."""

    dependencies: Iterable[params.Depends]
    """FastAPI dependencies to resolve for each message."""

    response_model: Any
    """The model that what the handler returns is validated with."""

    response_model_include: IncEx | None
    response_model_exclude: IncEx | None
    response_model_by_alias: bool
    response_model_exclude_unset: bool
    response_model_exclude_defaults: bool
    response_model_exclude_none: bool
