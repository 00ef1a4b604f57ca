"""Reads a relay's file, and what environment variables say instead."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from faststream_outbox.relay.problems import Problem, SettingsError, problems_of, suggestion
from faststream_outbox.relay.settings import PREFIX, RelaySettings

DELIMITER = "__"


def load(file: Path) -> RelaySettings:
    """Return what a file and the environment say together; a variable comes before the file.

    ``OUTBOX_RELAY__DATABASES__ORDERS__FORWARDERS__0__TO`` is ``to`` of the first forwarder of the database ``orders``.
    A hyphen in a database's name is an underscore there.

    Raises:
        SettingsError: The file cannot be read, or has something that cannot be; names every place.

    Example::

        settings = load(Path("relay.toml"))
    """
    found = _read(file)
    unknown = [*_unknown_variables()]

    class Loaded(BaseSettings, RelaySettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid")

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (_Together(settings_cls, found),)

    try:
        loaded = Loaded()  # type: ignore[call-arg]  # it reads them itself
    except ValidationError as error:
        problems = [_with_variable(problem) for problem in problems_of(error, RelaySettings)]
        raise SettingsError(str(file), unknown + problems) from None
    if unknown:
        raise SettingsError(str(file), unknown)
    return RelaySettings.model_validate({name: getattr(loaded, name) for name in RelaySettings.model_fields})


def _unknown_variables() -> Iterator[Problem]:
    """Yield variables whose first key is none; pydantic passes over them, as over those of other programs."""
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX):
            key = name[len(PREFIX) :].split(DELIMITER)[0].lower()
            if key not in RelaySettings.model_fields:
                yield Problem(name, f"unknown{suggestion(key, [*RelaySettings.model_fields])}")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        text = "cannot be read: it is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        # The message names line and column, and quotes nothing but a key.
        text = f"is not TOML: {error}"
    raise SettingsError(str(file), [Problem("", text)])


class _Together(PydanticBaseSettingsSource):
    """The file, with the variables laid over it."""

    def __init__(self, settings_cls: type[BaseSettings], found: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._found = found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # all fields come at once

    def __call__(self) -> dict[str, Any]:
        together: dict[str, Any] = _overridden(self._found, _Variables(self.settings_cls)())
        return together


class _Variables(EnvSettingsSource):
    """The variables. A text that is no JSON is a text, also where a list may stand."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _overridden(value: Any, variables: Any) -> Any:
    """Return a value of the file with what variables say instead; tables and lists are gone through."""
    if not isinstance(variables, Mapping):
        return variables
    if isinstance(value, str) and variables and all(name.isdecimal() for name in variables):
        # A list of one may be written as a text.
        value = [value]
    if isinstance(value, list) and all(name.isdecimal() for name in variables):
        items = dict(enumerate(value))
        for name, part in variables.items():
            items[int(name)] = _overridden(items.get(int(name), {}), part)
        return [items[index] for index in sorted(items)]
    table = dict(value) if isinstance(value, Mapping) else {}
    if not table and variables and all(name.isdecimal() for name in variables):
        return _overridden([], variables)
    for name, part in variables.items():
        key = next((key for key in table if _in_variables(key) == _in_variables(name)), name)
        table[key] = _overridden(table.get(key), part)
    return table


def _in_variables(key: str) -> str:
    return key.lower().replace("-", "_")


def _with_variable(problem: Problem) -> Problem:
    """Return a problem that names the variable, where one has set the value."""
    names = {name.upper(): name for name in os.environ}
    wanted = PREFIX + _in_variables(DELIMITER.join(_steps(problem.place))).upper()
    found = names.get(wanted)
    return problem if found is None else Problem(f"{problem.place} ({found})", problem.text)


def _steps(place: str) -> Iterator[str]:
    yield from place.replace("[", ".").replace("]", "").split(".")
