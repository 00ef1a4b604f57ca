"""Writes commands as they go over the line."""

from collections.abc import Sequence
from typing import TypeAlias

from redis.asyncio.connection import AbstractConnection

Command: TypeAlias = Sequence[str | int | bytes]

EMPTY_ARGUMENT = b"$0\r\n\r\n"
"""A bulk string in Redis's protocol, of which a command is an array: its length, and itself."""


def pack(commands: Sequence[Command], connection: AbstractConnection) -> list[bytes]:
    """Pack commands as redis-py does, which packs each argument anew and so takes ten times as long.

    Commands that carry messages are alike up to the message, which is bytes and stands last.
    """
    packed: list[bytes] = []
    beginnings: dict[Command, bytes] = {}
    for command in commands:
        head, message = command[:-1], command[-1]
        if not isinstance(message, bytes):
            packed += connection.pack_command(*command)
            continue
        if head not in beginnings:
            empty = b"".join(connection.pack_command(*head, b""))
            beginnings[head] = empty.removesuffix(EMPTY_ARGUMENT)
        packed.append(b"%b$%d\r\n%b\r\n" % (beginnings[head], len(message), message))
    return packed


def pack_bytes(command: Sequence[bytes]) -> bytes:
    """Pack a command whose arguments are bytes already, however many there are."""
    return b"*%d\r\n" % len(command) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in command])
