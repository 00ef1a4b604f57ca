"""Messages in Redis as plain clients find them, and what must hold of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from faststream.redis.parser import BinaryMessageFormatV1

from integration.servers.redis import RedisServer


class Message(NamedTuple):
    """What a consumer gets."""

    body: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, envelope: bytes) -> "Message":
        return cls(*BinaryMessageFormatV1.parse(envelope))

    @property
    def row_id(self) -> int:
        return int(self.headers["outbox-id"])

    @property
    def key(self) -> str | None:
        return self.headers.get("outbox-key")


class Box:
    """A stream or a list, read by redis-py alone."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self._server = server
        self.name = name

    async def messages(self) -> list[Message]:
        """All that is there, in its order."""
        return [Message.of(envelope) for envelope in await self.envelopes()]

    async def envelopes(self) -> list[bytes]:
        async with self._server.client() as client:
            match await client.type(self.name):
                case b"stream":
                    return [fields[b"__data__"] for _, fields in await client.xrange(self.name)]
                case b"list":
                    return list(await client.lrange(self.name, 0, -1))
                case kind:
                    assert kind == b"none"
                    return []


def without_repeats(messages: Sequence[Message]) -> list[Message]:
    """The first of each idempotency key, as an inbox would let through; repeats must be the same."""
    first: dict[str, Message] = {}
    for message in messages:
        assert first.setdefault(message.headers["idempotency-key"], message) == message
    return list(first.values())


def check_order(messages: Sequence[Message]) -> None:
    by_key: defaultdict[str | None, list[int]] = defaultdict(list)
    for message in messages:
        by_key[message.key].append(message.row_id)
    for key, ids in by_key.items():
        assert key is None or ids == sorted(ids), f"{key!r} out of order"


def check_complete(messages: Sequence[Message], ids: Iterable[int]) -> None:
    """Every row once, in order, after repeats are removed."""
    unique = without_repeats(messages)
    assert sorted(message.row_id for message in unique) == sorted(ids)
    check_order(unique)
