"""What a broker, its routers and their endpoints share: FastStream's settings, and the loops that run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._faststream import BrokerConfig
from faststream_outbox._store.storage import Storage
from faststream_outbox._values.outcome import TextOf, describe
from faststream_outbox.exceptions import ConfigError


@dataclass(kw_only=True)
class OutboxBrokerConfig(BrokerConfig):
    """FastStream's configuration, and the loops that run while the broker does."""

    storage: Storage | None = field(default=None, repr=False)
    """Where the rows of a broker are. A router has none: its endpoints have those of the broker that includes it."""
    publish_only: bool = False
    """Whether consumers are refused, and nothing is started."""
    text_of: TextOf = field(default=describe, repr=False)
    """Returns what is kept of exceptions."""
    destination_of: Callable[[Any], Any] | None = field(default=None, init=False, repr=False)
    """Returns what a lane sends to, given the forwarder's publisher, where a ``TestOutboxBroker`` runs the loops."""
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
