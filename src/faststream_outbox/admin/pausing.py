"""What a pause may be of, who says so, and what is said where there is no control table."""

import getpass
import socket
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import TypedDict

from faststream_outbox._values.control import Scope, StoredPause
from faststream_outbox._values.limits import MAX_ADDRESS_BYTES, MAX_KEY_BYTES, MAX_QUEUE_BYTES
from faststream_outbox._values.texts import check_name, check_text
from faststream_outbox.checks import check_options
from faststream_outbox.exceptions import ConfigError, InvalidMessageError

MAX_WHO_BYTES = 255
MAX_WHY_BYTES = 4096

NO_TABLE = (
    "there is no control table, which keeps pauses and the audit log: create what make_outbox_control_table declares "
    "(faststream-outbox ddl create --control-table NAME prints it), and name it: OutboxBroker(..., control_table=...) "
    "or --control-table"
)


class ScopeOptions(TypedDict, total=False):
    """What is paused or resumed: a forwarder, a queue, a key of a queue, or a key in every queue."""

    forwarder: str | None
    """The name of a forwarder, as ``forwarder.name`` and ``status()`` show it."""

    queue: str | None
    """A queue. Copies of a forwarder with ``tee=True`` are in one of its own, as in ``orders=>redis:orders``."""

    key: str | None
    """A key: of ``queue``, or without one in every queue."""


def to_scope(method: str, options: ScopeOptions) -> Scope:
    """Return what options are about.

    Raises:
        ConfigError: They are about nothing, or about several things, or a name cannot be.
        TypeError: There is no such option.
    """
    check_options(method, options, ScopeOptions)
    scope = Scope(**options)
    given = scope.given()
    if not given or ("forwarder" in given and len(given) > 1):
        msg = f"{method}: name a forwarder, or a queue, or a key (with or without its queue); got {dict(given) or None}"
        raise ConfigError(msg)
    try:
        for name, limit in (("forwarder", MAX_ADDRESS_BYTES), ("queue", MAX_QUEUE_BYTES)):
            if name in given:
                check_name(name, given[name], limit)
        if scope.key is not None:
            check_text("key", scope.key, MAX_KEY_BYTES)
    except InvalidMessageError as error:
        raise ConfigError(str(error)) from None
    return scope


def check_until(until: Any) -> datetime | timedelta | None:
    """Return when a pause is to end: at a time, or after a span.

    Raises:
        ConfigError: It is neither.
    """
    if until is None or isinstance(until, timedelta):
        return until
    if isinstance(until, datetime) and until.utcoffset() is not None:
        return until
    msg = f"until: must be a timezone-aware datetime or a timedelta, got {until!r}"
    raise ConfigError(msg)


def check_words(by: Any, why: Any) -> tuple[str, str | None]:
    """Return who does something and why; without a name, the user and the machine of this process.

    Raises:
        ConfigError: A text is empty, too long, or cannot be stored.
    """
    try:
        if by is not None:
            check_text("by", by, MAX_WHO_BYTES)
        if why is not None:
            check_text("why", why, MAX_WHY_BYTES)
    except InvalidMessageError as error:
        raise ConfigError(str(error)) from None
    return (me() if by is None else by), why


def me() -> str:
    """Return the user and the machine of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        # In a container whose user has no name.
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def of_queue(pauses: Iterable[StoredPause], queue: str, forwarder: str | None) -> tuple[StoredPause, ...]:
    """Return the pauses of a queue, of its keys, and of the forwarder whose copies are in it."""
    return tuple(
        pause
        for pause in pauses
        if pause.scope.queue == queue or (forwarder is not None and pause.scope.forwarder == forwarder)
    )
