"""What a broker and its routers read their settings from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._faststream import BrokerConfig
from faststream_outbox.exceptions import ConfigError

MAX_COUNT = 2**31 - 1
"""PostgreSQL's largest integer; LIMIT gets it."""

MIN_SECONDS = 0.01
"""No interval and no time-out is shorter: a loop would do nothing but look, and no server answers as fast."""

MAX_SECONDS = 7 * 86_400.0
"""A week: nothing sensible waits longer, and infinity fits into no interval of PostgreSQL."""


def check_options(call: str, given: Mapping[str, Any], known: Any) -> None:
    """Refuse options that a ``TypedDict`` does not have; Python itself takes any name for ``**options``.

    Args:
        call: What was called, for the message.
        given: The keyword arguments.
        known: The ``TypedDict``.

    Raises:
        TypeError: Names the first unknown option.
    """
    for name in given:
        if name not in known.__optional_keys__:
            msg = f"{call}() got an unexpected keyword argument {name!r}"
            raise TypeError(msg)


def require_count(option: str, value: Any, *, at_most: int = MAX_COUNT) -> int:
    """Return a value that is a number of things; raise for any other.

    Raises:
        ConfigError: It is not an integer, or there can be none of so many.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
        msg = f"{option}: must be an integer from 1 to {at_most}, got {value!r}"
        raise ConfigError(msg)
    return value


def require_seconds(option: str, value: Any, *, at_least: float) -> float:
    """Return a value that is a span of time; raise for any other.

    Raises:
        ConfigError: It is not a number, or too short or too long.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value <= MAX_SECONDS:
        msg = f"{option}: must be a number of seconds from {at_least:g} to {MAX_SECONDS:g}, got {value!r}"
        raise ConfigError(msg)
    return value


def require_flag(option: str, value: Any) -> bool:
    """Return a value that is True or False; raise for any other, since ``"no"`` would count as True.

    Raises:
        ConfigError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        msg = f"{option}: must be True or False, got {value!r}"
        raise ConfigError(msg)
    return value


@dataclass(kw_only=True)
class OutboxBrokerConfig(BrokerConfig):
    """FastStream's configuration, and the loops that run while the broker does."""

    _runtime: Runtime | None = field(default=None, init=False, repr=False)
    is_open: bool = field(default=False, init=False, repr=False)
    """Whether the broker has started and does not stop yet: what is declared now is started at once."""
    is_in_test: bool = field(default=False, init=False, repr=False)
    """Whether a ``TestOutboxBroker`` stands in the place of starting and stopping."""

    @property
    def current_runtime(self) -> Runtime | None:
        """The running loops; None while the broker is not started."""
        return self._runtime

    @property
    def runtime(self) -> Runtime:
        """The running loops.

        Raises:
            RuntimeError: The broker has not been started.
        """
        if self._runtime is None:
            msg = "the broker is not started: call broker.start(), or let the application do it"
            raise RuntimeError(msg)
        return self._runtime

    def refuse_other_loops(self, what: str) -> None:
        """Refuse to start what is declared where the broker's loops cannot be joined.

        Raises:
            ConfigError: This is no code of the event loop that the broker runs in.
        """
        if not self.runtime.is_in_this_loop:
            msg = (
                f"{what}: the broker has started, and this is not its event loop: declare it before the start, or in a "
                "coroutine of that loop"
            )
            raise ConfigError(msg)

    def set_runtime(self, runtime: Runtime) -> None:
        """Set the loops of all endpoints."""
        self._runtime = runtime

    def take_runtime(self) -> Runtime | None:
        """Take the loops away from all endpoints, and return them."""
        runtime, self._runtime = self._runtime, None
        return runtime
