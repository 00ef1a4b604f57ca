"""Refuses arguments of handlers and routes that FastAPI cannot fill in, with the words to write instead."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ForwardRef, get_args, get_origin

from fast_depends.dependencies import Dependant
from fast_depends.library import CustomField
from fastapi import Request, params
from fastapi.dependencies.utils import get_typed_signature
from pydantic import PydanticUserError, TypeAdapter

from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import OutboxMessage
from faststream_outbox.publisher.producer import OutboxProducer
from faststream_outbox.subscriber.declarations import unresolved

ALCHEMY = "advanced_alchemy.extensions."
"""Where its dependencies for FastAPI are."""

_SHORTCUTS = {OutboxBroker: "OutboxBroker", OutboxMessage: "OutboxMessage", OutboxProducer: "OutboxProducer"}


def check_route(endpoint: Callable[..., Any]) -> None:
    """Refuse arguments of a route that FastAPI would refuse without naming the outbox, or take for a query's parameter.

    Raises:
        ConfigError: Names route, argument, and what to import.
    """
    for owner, parameter in _parameters(endpoint, _name_of(endpoint)):
        _refuse_plain_classes(owner, parameter)
        _refuse_faststreams(owner, parameter)


def check_handler(handler: Callable[..., Any]) -> None:
    """Refuse the same of a subscriber's handler, annotations whose names do not exist at run time, and HTTP's sessions.

    FastAPI would look for an argument without a known name in a query, which no message has.

    Raises:
        ConfigError: Names handler, argument, and what to write.
    """
    name = _name_of(handler)
    for owner, parameter in _parameters(handler, name, _refuse_sessions_of_http):
        _refuse_plain_classes(owner, parameter)
        # FastStream itself refuses its own Depends in the handler; it does not look further.
        if owner != name or not isinstance(_marker_of(parameter), Dependant):
            _refuse_faststreams(owner, parameter)
        if _is_unresolved(parameter.annotation):
            raise unresolved(owner, parameter.name, parameter.annotation)


def _parameters(
    call: Callable[..., Any], owner: str, check: Callable[[str, Any], None] = lambda _owner, _dependency: None
) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield what FastAPI would fill in itself, of a callable and of all that it depends on; ``check`` these."""
    try:
        parameters = get_typed_signature(call).parameters.values()
    except (TypeError, ValueError):
        # A callable that does not show its signature, on which FastAPI has the last word.
        return
    for parameter in parameters:
        depends = next((part for part in _parts_of(parameter) if isinstance(part, params.Depends)), None)
        if depends is None:
            yield owner, parameter
        elif (dependency := depends.dependency or _type_of(parameter.annotation)) is not None:
            check(owner, dependency)
            yield from _parameters(dependency, f"{owner}, its dependency {_name_of(dependency)}", check)


def _refuse_sessions_of_http(owner: str, dependency: Any) -> None:
    """Refuse advanced-alchemy's sessions: its middleware commits and closes them behind HTTP responses alone."""
    if not str(getattr(dependency, "__module__", "")).startswith(ALCHEMY):
        return
    if any(
        _type_of(parameter.annotation) is Request for parameter in inspect.signature(dependency).parameters.values()
    ):
        msg = (
            f"{owner}: its dependency {_name_of(dependency)} of advanced-alchemy has a session that is committed and "
            "closed after an HTTP response, and never after a message: write a dependency with "
            "'async with config.create_session_maker()() as session, session.begin(): yield session'"
        )
        raise ConfigError(msg)


def _refuse_faststreams(owner: str, parameter: inspect.Parameter) -> None:
    marker = _marker_of(parameter)
    if marker is not None:
        kind = "Depends" if isinstance(marker, Dependant) else "Context"
        instead = "fastapi's Depends" if kind == "Depends" else "Context, or a shortcut, of faststream_outbox.fastapi"
        msg = f"{owner}: {parameter.name!r} is faststream's {kind}, which FastAPI does not resolve: use {instead}"
        raise ConfigError(msg)


def _refuse_plain_classes(owner: str, parameter: inspect.Parameter) -> None:
    for part in (parameter.annotation, *get_args(parameter.annotation)):
        name = _SHORTCUTS.get(part) if isinstance(part, type) else None
        if name is not None:
            msg = (
                f"{owner}: {parameter.name!r} is annotated with the class {name}, which FastAPI does not know: write "
                f"from faststream_outbox.fastapi import {name}"
            )
            raise ConfigError(msg)


def _is_unresolved(annotation: Any) -> bool:
    if isinstance(annotation, ForwardRef):
        return True
    if not any(isinstance(part, ForwardRef | str) for part in _parts_within(annotation)):
        return False
    try:
        # A text within may be a name, or what a Literal has.
        return not TypeAdapter(annotation).pydantic_complete
    except NameError:
        return True
    except PydanticUserError:
        # Something else is wrong with it, which FastAPI tells.
        return False


def _marker_of(parameter: inspect.Parameter) -> Any:
    return next((part for part in _parts_of(parameter) if isinstance(part, Dependant | CustomField)), None)


def _parts_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return where FastAPI and FastStream look for a dependency: the default, and what stands in ``Annotated``."""
    is_annotated = get_origin(parameter.annotation) is Annotated
    return (parameter.default, *(get_args(parameter.annotation)[1:] if is_annotated else ()))


def _parts_within(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield part
        yield from _parts_within(part)


def _type_of(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _name_of(call: Any) -> str:
    return getattr(inspect.unwrap(call), "__name__", None) or type(call).__name__
