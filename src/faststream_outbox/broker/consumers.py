"""Who takes which queue's rows, and the copies that publishing makes for some of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.forwarder import OutboxForwarder


class Copies:
    """Says which queues get a copy of what is published to a queue.

    Args:
        forwarders: Gives all forwarders there are now; routers may bring more of them at any time.
    """

    def __init__(self, forwarders: Callable[[], Sequence[OutboxForwarder]]) -> None:
        self._forwarders = forwarders
        self._count = 0
        self._takers: dict[str, list[OutboxForwarder]] = {}

    def of(self, queue: str) -> Sequence[str]:
        """Name the queues that get a copy.

        Raises:
            ConfigError: Two forwarders would share a copy, or the name of one cannot be known yet.
        """
        forwarders = self._forwarders()
        if len(forwarders) != self._count:
            self._takers = _takers_of_copies(forwarders)
            # Last: another thread's publish_sync must not take the old takers for the new ones.
            self._count = len(forwarders)
        if queue not in self._takers:
            return ()
        copies = [forwarder.taken_from(queue) for forwarder in self._takers[queue]]
        refuse_competition(copies)
        return copies


def _takers_of_copies(forwarders: Iterable[OutboxForwarder]) -> dict[str, list[OutboxForwarder]]:
    takers: defaultdict[str, list[OutboxForwarder]] = defaultdict(list)
    for forwarder in forwarders:
        for queue in forwarder.queues if forwarder.tee else ():
            takers[queue].append(forwarder)
    return dict(takers)


def taken_queues(consumers: Iterable[Any], *, is_final: bool) -> list[str]:
    """Name the queues that consumers take rows from: of forwarders with ``tee=True``, those of their copies.

    Args:
        consumers: Subscribers and forwarders.
        is_final: False: leave out forwarders whose name cannot be known yet, since a router has still to be included.

    Raises:
        ConfigError: The name of a forwarder cannot be known, or not be used.
    """
    queues: list[str] = []
    for consumer in consumers:
        if not isinstance(consumer, OutboxForwarder):
            queues += getattr(consumer, "queues", ())
        elif is_final or consumer.has_name or not consumer.tee:
            queues += consumer.taken_queues
    return queues


def refuse_competition(queues: Iterable[str]) -> None:
    """Refuse two consumers that would compete for the rows of one queue.

    Raises:
        ConfigError: Names the queue.
    """
    for queue, count in Counter(queues).items():
        if count > 1:
            raise _competition(queue)


def _competition(queue: str) -> ConfigError:
    origin, is_copy, name = queue.partition(SEPARATOR)
    if is_copy:
        return ConfigError(
            f"name: {origin!r} has a forwarder with tee=True named {name!r} already; give this one a name"
        )
    return ConfigError(
        f"queues: {queue!r} has a consumer already, and a row is for one consumer; give a forwarder tee=True, which "
        "makes it a consumer of its own copy, or handle both in one place",
    )
