"""The step that takes the messages of one shard once: ``take_once.lua`` as a command, and its answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

from faststream_outbox.forwarders.redis.exact.marker import (
    END,
    KEPT,
    Element,
    ShardMarker,
    element_of,
    mark_text,
    token_text,
)

EVAL = b"EVAL"
SCRIPT = (files(__package__) / "take_once.lua").read_bytes()

EXPECTED = 4
"""Where in a command without addresses the expected token stands."""

ANY = b"any"
"""In its place, where the marker is to say what it has: no marker has that."""

MOST_ARGUMENTS = 7500
"""Of a message's command: Lua calls no function with more than 8000 (LUAI_MAXCSTACK, ``luaconf.h`` of Lua 5.1)."""


class Message(NamedTuple):
    """One message, as the script takes it."""

    mark: bytes
    """As the marker has it."""
    address: bytes
    arguments: Sequence[bytes]
    """Of its command, behind those that all messages have."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The marker was the expected one."""

    count: int
    """How many messages were taken, the first ones."""
    problem: str | None
    """What was answered to the next one, which was not."""


@dataclass(frozen=True, slots=True)
class Contradicted:
    """The marker is another one, and nothing was taken."""

    there: Sequence[Element]


def look(marker: ShardMarker) -> list[bytes]:
    """Return the command that asks whether the marker is the expected one, or what it has where rows wait."""
    command = call(marker, marker.next_token(), ())
    return [ANY if number == EXPECTED and marker.is_open else part for number, part in enumerate(command)]


def call(
    marker: ShardMarker, token: int, messages: Sequence[Message], *, verb: bytes = b"", fixed: Sequence[bytes] = ()
) -> list[bytes]:
    """Return the command that takes messages.

    Args:
        marker: Of their shard.
        token: The marker's, once they are taken.
        messages: In order.
        verb: The name of the command that takes a message.
        fixed: Its arguments between the address and those of the message.
    """
    addresses = [*dict.fromkeys(message.address for message in messages)]
    keys = [marker.name.encode(), *addresses]
    number_of = {address: b"%d" % number for number, address in enumerate(addresses, 2)}
    return [
        EVAL,
        SCRIPT,
        b"%d" % len(keys),
        *keys,
        token_text(marker.current),
        b"%b %b" % (token_text(token), token_text(marker.before)),
        b"%d" % (KEPT + marker.behind + 1),
        END.join(map(mark_text, marker.waiting)),
        END.join([message.mark for message in messages]),
        verb,
        b"%d" % len(fixed),
        *fixed,
        *_runs(messages, number_of),
    ]


def _runs(messages: Sequence[Message], number_of: dict[bytes, bytes]) -> Iterator[bytes]:
    for (address, size), run in groupby(messages, _kind_of):
        arguments = [argument for message in run for argument in message.arguments]
        yield number_of[address]
        yield b"%d" % size
        yield b"%d" % (len(arguments) // size)
        yield from arguments


def _kind_of(message: Message) -> tuple[bytes, int]:
    return message.address, len(message.arguments)


def answer_of(answer: Sequence[Any]) -> Taken | Contradicted:
    """Read what the script has returned."""
    is_expected, *rest = answer
    if not is_expected:
        return Contradicted([element_of(element) for element in rest])
    return Taken(rest[0], rest[1].decode(errors="replace") if len(rest) > 1 else None)
