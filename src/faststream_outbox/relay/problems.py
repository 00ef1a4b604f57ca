"""What is wrong in a relay's file, each point with its place."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from faststream_outbox.checks import closest
from faststream_outbox.exceptions import ConfigError

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indexes that lead to a value, as in ``("databases", "orders", "forwarders", 0, "to")``."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One point that has to be corrected.

    Attributes:
        place: Where, as in ``databases.orders.forwarders[0].batch_size``; empty for the file as a whole.
        text: What is wrong, and what to write. It never has a value that may be secret.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class SettingsError(ConfigError):
    """A relay's file cannot be used.

    Attributes:
        file: Its name.
        problems: All that was found.
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems


def place_of(path: Iterable[str | int]) -> str:
    """Return a path as people write it: ``databases.orders.forwarders[0].to``."""
    place = ""
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        else:
            place += f".{step}" if place else step
    return place


def problems_of(error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """Yield what pydantic has found, without the values."""
    for details in error.errors(include_url=False, include_input=False, include_context=False):
        yield Problem(place_of(details["loc"]), _text_of(details, model))


def _text_of(details: ErrorDetails, model: type[BaseModel]) -> str:
    match details["type"]:
        case "extra_forbidden":
            *way, key = details["loc"]
            return f"unknown{suggestion(str(key), _names_at(way, model))}"
        case "missing":
            return "is missing"
    text = details["msg"].removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return what may have been meant by an unknown name, to be put behind ``unknown``."""
    meant = closest(name, known)
    return f"; did you mean {meant}?" if meant else f"; known are {', '.join(known)}" if known else ""


def _names_at(way: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Return the keys that the table at a path may have."""
    found: Any = model
    for step in way:
        if isinstance(found, type) and issubclass(found, BaseModel):
            found = _inner(found.model_fields[str(step)].annotation) if step in found.model_fields else None
        else:
            # A table whose keys are free, or a list: the step chooses one of its values.
            found = _inner(get_args(found)[-1]) if get_args(found) else None
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        return []
    return [field.alias or name for name, field in found.model_fields.items()]


def _inner(annotation: Any) -> Any:
    """Return what is optional without None."""
    if get_origin(annotation) in {Union, UnionType}:
        [*kinds] = (kind for kind in get_args(annotation) if kind is not type(None))
        return kinds[0]
    return annotation
