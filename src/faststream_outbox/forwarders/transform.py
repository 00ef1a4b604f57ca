"""Lets the user's function change what is sent of a row."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from faststream_outbox._values import wire
from faststream_outbox._values.forward import Forward, Unchanged
from faststream_outbox._values.limits import check_address, check_headers, check_key, is_reserved
from faststream_outbox._values.outcome import Dropped, Refused
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.parser import message_of

_ARGUMENT_OF_HEADER: Mapping[str, str] = {wire.ROW_KEY: "key"}
"""``Forward`` has this one; a message's other marks stay as they were published."""

Transform: TypeAlias = Callable[[OutboxMessage], Forward | None]
"""Says how a message is sent; None drops it."""


class Preparer:
    """Returns what is sent of a row, as the user's function decides.

    Args:
        transform: The function.

    Raises:
        ConfigError: It cannot be called, or it would have to be awaited.
    """

    def __init__(self, transform: Transform) -> None:
        if not callable(transform):
            msg = f"transform: must be a function of an OutboxMessage, got {transform!r}"
            raise ConfigError(msg)
        if _is_coroutine_function(transform):
            msg = (
                f"transform: must be a plain function, {transform!r} is async; to await something, write a "
                "handler with the destination's publisher over it"
            )
            raise ConfigError(msg)
        self._transform = transform

    def __call__(self, row: OutboxRow) -> Parcel | Dropped | Refused:
        """Prepare a row; whatever goes wrong is this row's failure alone."""
        try:
            changes = self._transform(message_of(Delivery(row)))
            return Dropped() if changes is None else _apply(row, changes)
        except Exception as error:  # noqa: BLE001 - the user's code
            return Refused(error)


def _apply(row: OutboxRow, changes: Any) -> Parcel:
    if not isinstance(changes, Forward):
        if inspect.iscoroutine(changes):
            changes.close()
        msg = f"transform must return a Forward or None, got {type(changes).__name__}"
        raise TypeError(msg)
    if changes.to is not None:
        check_address(changes.to)
    if changes.headers:
        row = row._replace(headers=_merged(row, changes.headers))
    if not isinstance(changes.key, Unchanged):
        check_key(changes.key)
        row = row._replace(key=changes.key)
    return Parcel(row, changes.to)


def _merged(row: OutboxRow, changes: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, Any] = {**row.headers, **changes}
    # Those that the bridge has put there are left out; an empty value stands for a header that is to be removed.
    check_headers(
        {
            name: "" if value is None else value
            for name, value in merged.items()
            if name in changes or not is_reserved(name)
        },
        arguments=_ARGUMENT_OF_HEADER,
    )
    return {name: value for name, value in merged.items() if value is not None}


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
