"""Finds numbers that JSON does not have."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from faststream_outbox.exceptions import InvalidMessageError

# A whole string first, so that what is in one is not taken for a constant.
_CONSTANT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(-?Infinity|NaN)', re.DOTALL)

_PLAIN = (str, bytes, int, type(None))
# To look a type up is a third of the work of the questions after it, and nearly every part of a body is of one of them.
_PLAIN_TYPES = frozenset({str, bytes, int, bool, type(None)})


def check_finite(body: Any, payload: bytes) -> None:
    """Refuse a body in whose JSON a NaN or an infinity would stand, or has become null.

    Python's own encoder and pydantic's write the constants, which other languages do not read and ``jsonb`` refuses.
    For the field of a pydantic model null is written, and by msgspec and orjson always: a consumer that wants a number
    fails. A model that puts a text or a None in its place itself (``ser_json_inf_nan="strings"``, a serializer of the
    field) is taken as it is.

    Args:
        body: What was encoded.
        payload: Its JSON.

    Raises:
        InvalidMessageError: There is such a number.
    """
    if b"NaN" in payload or b"Infinity" in payload:
        for match in _CONSTANT.finditer(payload):
            if match[1]:
                raise _refusal(match[1].decode())
    # Only where one may have been written as null: to look costs as much again as to encode.
    if b"null" in payload and not all(map(math.isfinite, _floats(body))):
        for number in _lost(body, json.loads(payload)):
            raise _refusal({math.inf: "Infinity", -math.inf: "-Infinity"}.get(number, "NaN"))


def _refusal(constant: str) -> InvalidMessageError:
    return InvalidMessageError(
        "body", f"holds {constant}, a number that JSON does not have; leave it out, or give None or a str in its place"
    )


def _floats(body: Any) -> Iterator[float]:
    """Return the floats of a body; it has been encoded, so it does not contain itself."""
    waiting = [body]
    while waiting:
        part = waiting.pop()
        if (kind := type(part)) in _PLAIN_TYPES:
            continue
        if kind is dict:
            waiting.extend(part.values())
            continue
        value = _dumped(part)
        if isinstance(value, float):
            yield value
        elif not isinstance(value, _PLAIN):
            waiting.extend(_parts(value))


def _lost(body: Any, decoded: Any) -> Iterator[float]:
    """Return the floats of a body in whose place its decoded JSON has None, and that are no finite numbers."""
    waiting = [(body, decoded)]
    while waiting:
        part, written = waiting.pop()
        value = _dumped(part)
        if isinstance(value, float):
            if written is None and not math.isfinite(value):
                yield value
        elif isinstance(written, dict | list):
            waiting.extend(zip(_parts(value), written.values() if isinstance(written, dict) else written, strict=False))


def _dumped(value: Any) -> Any:
    # With the serializers of the fields, and without what is excluded; but floats stay floats.
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    return value if serializer is None else serializer.to_python(value, mode="json")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    kind: Any = type(value)
    names: Any = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", ())
    return [getattr(value, name, None) for name in names]
