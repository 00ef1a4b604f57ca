"""The part of the door that recognizes, in a traceback, what FastStream was doing with a message."""

import sys
from collections.abc import Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any

from fast_depends.core import CallModel
from faststream._internal.di.config import _unwrap_message_to_fast_depends_decorator
from faststream.message import StreamMessage

_DECODE = StreamMessage.decode.__code__
_UNPACK = frozenset(
    # The two functions that it makes.
    constant
    for constant in _unwrap_message_to_fast_depends_decorator.__code__.co_consts
    if isinstance(constant, CodeType)
)
_RESOLVE = frozenset({CallModel.asolve.__code__, CallModel.solve.__code__})
_VALIDATE = CallModel._solve.__code__
_VALIDATE_RESULT = CallModel._cast_response.__code__


def frames_of(error: BaseException) -> list[FrameType]:
    """Return the frames that an error went through, the outermost first."""
    return [traceback.tb_frame for traceback in _tracebacks(error)]


def decoded_message(frames: list[FrameType]) -> Any:
    """Return the message whose body was being decoded; None if none was."""
    return next((frame.f_locals["self"] for frame in frames if frame.f_code is _DECODE), None)


def was_unpacking(frames: list[FrameType]) -> bool:
    """Return whether the body itself could not be laid out as the handler's arguments."""
    return bool(frames) and frames[-1].f_code in _UNPACK


def validating_model(frames: list[FrameType]) -> CallModel | None:
    """Return the handler, or the dependency, whose arguments were being validated; None if no validation was going on.

    Code of the user's that stands in between (a dependency which validates something itself, a handler) is none.
    """
    codes = [frame.f_code for frame in frames]
    begin = next((number for number, code in enumerate(codes) if code in _RESOLVE), len(codes))
    while begin < len(codes) and codes[begin] in _RESOLVE:
        begin += 1
    if begin + 1 >= len(codes) or codes[begin] is not _VALIDATE or codes[begin + 1] is _VALIDATE_RESULT:
        return None
    model: CallModel = frames[begin].f_locals["self"]
    return model


def was_validating_for_fastapi(frames: list[FrameType]) -> bool:
    """Return whether FastAPI's dependencies, and no code of theirs, found the message wanting."""
    module = sys.modules.get("faststream._internal.fastapi._compat")
    return module is not None and bool(frames) and frames[-1].f_code is module.raise_fastapi_validation_error.__code__


def _tracebacks(error: BaseException) -> Iterator[TracebackType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next
