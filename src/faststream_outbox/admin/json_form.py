"""Results of the admin API as values that JSON has."""

import dataclasses
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from faststream_outbox._values.control import Scope
from faststream_outbox._values.figures import Count, QueueFigures
from faststream_outbox._values.overview import Overview
from faststream_outbox._values.row import OutboxRow


def to_json(value: Any) -> Any:
    """Return a result of the admin API as dicts, lists, texts and numbers.

    Times are in the form of RFC 3339; a body is a text where it is UTF-8, and else base64 in an object. A count is an
    object, since it may be a lower bound. Whole numbers are exact.

    Example:
        >>> from faststream_outbox.admin import Count
        >>> to_json(Count(1000, is_whole=False))
        {'rows': 1000, 'is_whole': False}
    """
    match value:
        case bytes():
            return _body(value)
        case datetime():
            return value.isoformat()
        case list() | tuple() if not hasattr(value, "_asdict"):
            return [to_json(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return {str(name): to_json(each) for name, each in _parts(value).items()}


def _parts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Count | OutboxRow):
        return value._asdict()
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, QueueFigures):
        fields |= {"backlog": value.backlog, "dead": value.dead, "forwarder": value.forwarder}
    if isinstance(value, Scope):
        return value.given()
    if isinstance(value, Overview):
        fields |= {"state": value.state}
    return fields


def _body(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
