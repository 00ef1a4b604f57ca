"""Finds out whether an attempt failed since the message does not fit the handler: no other attempt can succeed."""

import re
import sys
from collections.abc import Set as AbstractSet
from types import FrameType
from typing import Any

from fast_depends.exceptions import ValidationError

from faststream_outbox._faststream.resolving import (
    decoded_message,
    frames_of,
    validating_model,
    was_unpacking,
    was_validating_for_fastapi,
)
from faststream_outbox.message import Delivery
from faststream_outbox.subscriber import chaining

_MSGSPECS_PATH = re.compile(r" - at `\$\.(\w+)")
"""Its errors tell in their text alone where they are."""


def is_misfit(error: BaseException | None) -> bool:
    """Return whether the message cannot be decoded, or is not what the handler's annotations ask for.

    An error of the same type that code of the user's raises (the handler, a dependency, what validates a dependency's
    result) is an error like any other: its cause may be gone the next time.
    """
    if error is None:
        return False
    frames = frames_of(error)
    if was_validating_for_fastapi(frames):
        return True
    if not isinstance(error, (ValueError, RecursionError, *_errors_of_msgspec())) or _had_begun(frames):
        return False
    return was_unpacking(frames) or _is_of_this_body(frames) or _is_of_an_argument(error, frames)


def _had_begun(frames: list[FrameType]) -> bool:
    # The innermost that stands around a handler is made there.
    return any(frame.f_code.co_filename == chaining.__file__ for frame in frames)


def _is_of_this_body(frames: list[FrameType]) -> bool:
    message = decoded_message(frames)
    return message is not None and isinstance(message.raw_message, Delivery)


def _is_of_an_argument(error: BaseException, frames: list[FrameType]) -> bool:
    model = validating_model(frames)
    if model is None:
        return False
    wrong = _names_in(error)
    return not wrong or not wrong <= {*model.dependencies, *model.custom_fields}


def _names_in(error: Any) -> AbstractSet[Any]:
    """Return the arguments that an error speaks of; none where it does not tell."""
    if isinstance(error, ValidationError):
        return {option.field_name for option in error.error_fields}
    errors = getattr(error, "errors", None)
    if callable(errors):
        return {each["loc"][0] for each in errors() if each["loc"]}
    return set(_MSGSPECS_PATH.findall(str(error)))


def _errors_of_msgspec() -> tuple[type[Exception], ...]:
    msgspec: Any = sys.modules.get("msgspec")
    return () if msgspec is None else (msgspec.MsgspecError,)
