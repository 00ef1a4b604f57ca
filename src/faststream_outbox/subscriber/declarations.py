"""Refuses handlers with arguments that have no source, when the broker starts: else each of their messages fails."""

import sys
from collections.abc import Iterator
from typing import Any, ForwardRef, get_args

from faststream_outbox._faststream import CallModel, HandlerItem, OptionItem
from faststream_outbox.exceptions import ConfigError


def refuse_what_fastapi_would_resolve(handler: HandlerItem[Any]) -> None:
    """Refuse FastAPI's dependencies where FastStream resolves: a default would reach the handler as it is.

    Raises:
        ConfigError: Names handler and argument.
    """
    params: Any = sys.modules.get("fastapi.params")
    if params is None:
        # Nobody can have used what nobody has imported.
        return
    for owner, option in _options(handler):
        if any(isinstance(part, params.Depends) for part in (option.default_value, *get_args(option.field_type)[1:])):
            msg = (
                f"{owner}: {option.field_name!r} is a dependency of FastAPI's, which is not resolved here: subscribe "
                "with router.subscriber of faststream_outbox.fastapi's OutboxRouter, or use faststream's Depends and "
                "the shortcuts of faststream_outbox.annotations"
            )
            raise ConfigError(msg)


def refuse_unresolved_annotations(handler: HandlerItem[Any]) -> None:
    """Refuse annotations whose names do not exist at run time: no message could be validated.

    Raises:
        ConfigError: Names handler, argument and annotation.
    """
    for owner, option in _options(handler):
        if isinstance(option.field_type, ForwardRef):
            raise unresolved(owner, option.field_name, option.field_type)


def unresolved(owner: str, argument: str, annotation: Any) -> ConfigError:
    """Return the error that tells of an annotation which is a text, and stays one."""
    written = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    return ConfigError(
        f"{owner}: the annotation {written!r} of {argument!r} cannot be resolved: a name in it does not exist at run "
        "time, as where it is imported under TYPE_CHECKING alone; import it for run time too"
    )


def outside_of_the_router(handler: HandlerItem[Any]) -> ConfigError:
    """Return the error for a handler on a FastAPI router's broker: it would get the message itself for its argument."""
    return ConfigError(
        f"{handler.name}: on a FastAPI router's own broker, the handler's arguments are not resolved: subscribe it "
        "with router.subscriber, or include its own router with router.include_router, once its handlers are declared"
    )


def _options(handler: HandlerItem[Any]) -> Iterator[tuple[str, OptionItem]]:
    model: CallModel | None = handler.dependant
    if model is not None:
        yield from _options_of(model, handler.name)


def _options_of(model: CallModel, owner: str) -> Iterator[tuple[str, OptionItem]]:
    for option in model.params:
        yield owner, option
    for key in (*model.dependencies.values(), *model.extra_dependencies):
        dependency = model.dependency_provider.get_dependant(key)
        yield from _options_of(dependency, f"{owner}, its dependency {dependency.call_name}")
