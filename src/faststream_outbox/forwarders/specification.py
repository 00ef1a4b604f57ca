"""How a forwarder appears in AsyncAPI: as one who sends to the channel of its destination."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from faststream.specification.schema import PublisherSpec

from faststream_outbox.exceptions import ConfigError


class _Forwarder(Protocol):
    @property
    def to(self) -> Any: ...
    @property
    def queues(self) -> Sequence[str]: ...
    @property
    def name(self) -> str: ...
    @property
    def has_name(self) -> bool: ...


class ForwarderEntry:
    """What FastStream asks of a publisher when it writes the document.

    Address, bindings, payload and description are those of the forwarder's publisher, configured with FastStream's own
    words. It stands among the outbox broker's publishers, since FastStream looks for none elsewhere, and does nothing
    there: a forwarder is started, stopped and tested as itself.
    """

    # Said to FastStream's test brokers: there is nothing to put a mock in front of.
    _fake_handler = True

    def __init__(self, forwarder: _Forwarder) -> None:
        self._forwarder = forwarder

    @property
    def specification(self) -> Any:
        """The publisher's own: it says whether to show it."""
        return self._forwarder.to.specification

    def schema(self) -> Mapping[str, PublisherSpec]:
        """Return the publisher's channels, under names that begin with the forwarder's queues."""
        queues = ",".join(self._forwarder.queues)
        return {
            f"{queues}:{self._name_for(spec)}:Forwarder": replace(
                spec, description=spec.description or f"Carries the messages of queue {queues} on, byte for byte."
            )
            for spec in self._forwarder.to.schema().values()
        }

    def _name_for(self, spec: PublisherSpec) -> str:
        try:
            return self._forwarder.name if self._forwarder.has_name else f"{spec.address}"
        except ConfigError:
            # Its settings are not safe, which is said when the broker starts.
            return f"{spec.address}"

    async def start(self) -> None:
        """Skip the start: the broker starts the forwarder itself."""

    def reset_test(self) -> None:
        """Skip the reset: there is no mock."""
