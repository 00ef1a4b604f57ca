"""What a broker and its routers read their settings from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._faststream import BrokerConfig


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


@dataclass(kw_only=True)
class OutboxBrokerConfig(BrokerConfig):
    """FastStream's configuration, and the loops that run while the broker does."""

    _runtime: Runtime | None = field(default=None, init=False, repr=False)

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

    def set_runtime(self, runtime: Runtime) -> None:
        """Give the loops to all endpoints."""
        self._runtime = runtime

    def take_runtime(self) -> Runtime | None:
        """Take the loops away from all endpoints, and return them."""
        runtime, self._runtime = self._runtime, None
        return runtime
