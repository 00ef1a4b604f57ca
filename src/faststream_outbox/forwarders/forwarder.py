"""A forwarder: lanes from some queues to one destination."""

import asyncio
from collections.abc import Sequence
from typing import Any

from typing_extensions import Unpack

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.lane import Lane
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.factory import NamedDestination, create_destination
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.retry import DEFAULT_RETRY, as_strategy
from faststream_outbox.schema import SHARDS


class OutboxForwarder:
    """Carries the rows of some queues to a destination; made by ``broker.forwarder(...)``.

    It starts and stops with the broker. A destination that is down when it starts does not stop the application: the
    forwarder tries to connect until it can.
    """

    def __init__(self, queues: Sequence[str], *, to: Any, config: Any, **options: Unpack[ForwarderOptions]) -> None:
        self._queues = queues
        self.to = to
        """The publisher of the destination."""
        self._config = config
        self._name = options.get("name")
        self._batch_size = _positive("batch_size", options.get("batch_size", 500))
        self._lane_count = _positive("lanes", options.get("lanes", 2))
        if self._lane_count > SHARDS * len(queues):
            msg = f"lanes: {self._lane_count} is more than the {SHARDS} shards that each queue has"
            raise ConfigError(msg)
        timeout = options.get("send_timeout")
        self._send_timeout = None if timeout is None else _positive("send_timeout", timeout)
        self._min_interval = _positive("min_fetch_interval", options.get("min_fetch_interval", 1.0))
        self._max_interval = _positive("max_fetch_interval", options.get("max_fetch_interval", 10.0))
        retry = options.get("retry_strategy")
        self._failure = FailurePolicy(retry=DEFAULT_RETRY if retry is None else as_strategy(retry))
        self._destination: NamedDestination | None = None
        self._lanes: list[Lane] = []

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues, with the prefixes of the routers that the forwarder stands on."""
        return [f"{self._config.prefix}{queue}" for queue in self._queues]

    @property
    def name(self) -> str:
        """The name given, or kind and address of the destination once the forwarder has started."""
        if self._name is not None:
            return self._name
        return "forwarder" if self._destination is None else self._destination.name

    def start(self) -> None:
        """Check the destination's settings and begin to carry; the broker calls it.

        Raises:
            ConfigError: The destination's settings are not safe; the message says what to write instead.
        """
        if self._lanes:
            return
        runtime = self._config.runtime
        self._destination = create_destination(self.to, runtime.log)
        self._lanes = [
            runtime.lane(
                f"{self.name}-{number}",
                self.queues,
                self._destination,
                self._failure,
                batch_size=self._batch_size,
                send_timeout=self._send_timeout or self._destination.send_timeout,
                min_interval=self._min_interval,
                max_interval=self._max_interval,
            )
            for number in range(self._lane_count)
        ]
        for lane in self._lanes:
            lane.start()

    async def stop(self, grace: float) -> None:
        """Take no more rows, let hand-overs finish for up to ``grace`` seconds, give back what is cut off."""
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*(lane.stop(grace) for lane in lanes))

    async def close(self) -> None:
        """Let go of the destination, after all forwarders have stopped."""
        destination, self._destination = self._destination, None
        if destination is not None:
            await destination.close()


def _positive(option: str, value: Any) -> Any:
    if not value > 0:
        msg = f"{option}: must be greater than 0, got {value!r}"
        raise ConfigError(msg)
    return value
