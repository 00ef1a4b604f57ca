"""One connection to a Redis server: transactions that are tried just once, and that are dead when they are given up."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError

from faststream_outbox.forwarders.redis.dialling import ANSWERS, dial, time_limit, trouble
from faststream_outbox.forwarders.redis.packing import Command, pack, pack_bytes
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError
from faststream_outbox.forwarders.socket_reset import reset
from faststream_outbox.forwarders.suspects import ConnectionBrokenError

CLOSE_SECONDS = 1.0

DEFAULT_MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""``proto-max-bulk-len`` where the server does not tell."""


class Session(NamedTuple):
    """A connection as its server knows it. The number alone begins anew when the server does."""

    id: str
    address: str
    """The client's, as the server sees it."""
    run: str | None
    """What the server calls itself until it is started again; None where it does not tell."""


class RedisClient:
    """Hands over to one address. Made by ``open``; after ``close`` nothing more is sent.

    Attributes:
        session: Of this connection; None where the server does not tell.
        max_message_bytes: A larger message makes the server close the connection.
        memory: The section of this name of the server's INFO; empty where it does not tell.
        server: The same of its section "server".
        opened_at: When it has connected, by the monotonic clock.
    """

    def __init__(self, connection: AbstractConnection, pool: ConnectionPool, settings: RedisSettings) -> None:
        self.session: Session | None = None
        self.max_message_bytes = DEFAULT_MAX_MESSAGE_BYTES
        self.memory: Mapping[str, str] = {}
        self.server: Mapping[str, str] = {}
        self.opened_at = time.monotonic()
        self._connection = connection
        # redis-py's sentinel connections hold theirs by a weak reference only.
        self._pool = pool
        self._settings = settings
        self._about = f"{settings.command[0]} {settings.address!r}"
        # redis-py lets it go when it disconnects, and it then still sends what is buffered: what was given up.
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        self._is_cut = False

    @classmethod
    async def open(cls, settings: RedisSettings, abandoned: Session | None = None) -> "RedisClient":
        """Connect; leaves nothing open when it fails.

        Args:
            settings: Where to.
            abandoned: The session of an earlier connection, whose last transaction may have no answer. The server
                closes it first: what is still on its way there will not be executed.

        Raises:
            RedisAnswerError: The server does not want us.
            ConnectionError: No server answers.
            TimeoutError: Not in time.
        """
        client = cls(*await dial(settings), settings)
        try:
            if abandoned is not None:
                with contextlib.suppress(RedisAnswerError):
                    await client.execute("CLIENT", "KILL", "ID", abandoned.id, "ADDR", abandoned.address)
            with contextlib.suppress(RedisAnswerError):
                client.server = await client._info("server")
                client.session = _session(await client.execute("CLIENT", "INFO"), client.server.get("run_id"))
            with contextlib.suppress(RedisAnswerError):
                client.max_message_bytes = _limit(await client.execute("CONFIG", "GET", "proto-max-bulk-len"))
            client.memory = await client._info("memory")
        except BaseException:
            await client.close()
            raise
        return client

    async def _info(self, section: str) -> Mapping[str, str]:
        try:
            info: bytes = await self.execute("INFO", section)
        except RedisAnswerError:
            return {}
        return _fields(info.decode().splitlines(), ":")

    @property
    def is_alive(self) -> bool:
        """Whether the connection can be used, as far as that shows on this side."""
        reader = self._connection._reader  # noqa: SLF001
        return not self._is_cut and reader is not None and not reader.at_eof() and reader.exception() is None

    async def probe(self, *others: Command) -> None:
        """Find out whether messages would be taken now, without sending one.

        Redis looks at memory, disk, replicas and permissions when it queues the command of a transaction.

        Args:
            others: Commands that must be permitted too.

        Raises:
            RedisAnswerError: They would not.
            Exception: No server answers.
        """
        # Nothing behind it before its answer: without a transaction the command would be executed.
        await self.execute("MULTI")
        *answers, kind = await self._exchange([
            (*self._settings.command, b""), *others, ("DISCARD",), ("TYPE", self._settings.address)
        ])  # fmt: skip
        for answer in answers:
            if isinstance(answer, RedisAnswerError):
                raise answer
        # Asking for the type may be forbidden where writing is allowed.
        if self._settings.holds is not None and isinstance(kind, bytes) and kind not in (b"none", self._settings.holds):
            raise RedisAnswerError(self._about, f"WRONGTYPE for a key that holds a {kind.decode()}")

    async def execute(self, *command: str | int | bytes) -> Any:
        """Execute one command.

        Raises:
            RedisAnswerError: It was not executed.
            Exception: It is not known whether it was.
        """
        [answer] = await self._exchange([command])
        if isinstance(answer, RedisAnswerError):
            raise answer
        return answer

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Execute commands in a transaction: all of them, or none.

        Returns:
            The answer to each, which may be a RedisAnswerError: a command can still fail where it meets the data.

        Raises:
            RedisAnswerError: None was executed.
            Exception: It is not known whether they were.
        """
        answers: list[Any] = []
        try:
            await self._exchange([("MULTI",), *commands, ("EXEC",)], answers)
        except Exception:
            # The server closes the connection behind some of its answers, and so never comes to EXEC.
            _raise_refusal(answers)
            raise
        _raise_refusal(answers)
        if isinstance(answers[0], RedisAnswerError):
            # Each command stood alone. So it is when the permission for transactions is taken away right now.
            self._cut()
            msg = f"{self._about}: {answers[0].reply} to MULTI"
            raise ConnectionError(msg) from answers[0]
        return [self._read(answer, command) for answer, command in zip(answers[-1], commands, strict=True)]

    async def evaluate(self, calls: Sequence[Sequence[bytes]], answers: list[Any]) -> None:
        """Execute commands together, each of them alone.

        Args:
            calls: The commands.
            answers: Takes the answer to each, which may be a RedisAnswerError. It has those that have come, also where
                an exception is raised: it is not known what has become of the other commands.

        Raises:
            Exception: See above.
        """
        await self._exchange(calls, answers, b"".join(map(pack_bytes, calls)))

    async def close(self) -> None:
        """Close the connection, at once."""
        self._cut()
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)
            # How it ended is asked, or asyncio would complain that nobody did.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()

    async def _exchange(
        self, commands: Sequence[Command], answers: list[Any] | None = None, packed: bytes | None = None
    ) -> list[Any]:
        """Send commands together and read an answer to each, or cut the connection."""
        answers = [] if answers is None else answers
        seconds, about = self._settings.response_timeout, self._about_all(commands)
        try:
            async with time_limit(about, seconds):
                await self._send(commands, about, packed)
            async with time_limit(about, seconds):
                for command in commands:
                    answers.append(await self._receive(command, about))
        except BaseException:
            self._cut()
            raise
        return answers

    async def _send(self, commands: Sequence[Command], about: str, packed: bytes | None) -> None:
        if not self.is_alive:
            msg = f"{about}: the connection is closed"
            raise ConnectionError(msg)
        ready = pack(commands, self._connection) if packed is None else [packed]
        try:
            await self._connection.send_packed_command(ready, check_health=False)
        except (RedisError, OSError) as error:
            raise trouble(about, error) from error

    async def _receive(self, command: Command, about: str) -> Any:
        try:
            # redis-py would hang up at an answer like LOADING, and with one of its parsers lose those behind it.
            return self._read(await self._connection.read_response(disconnect_on_error=False), command, about)
        except ANSWERS as error:
            return self._read(error, command, about)
        except (RedisError, OSError) as error:
            raise trouble(about, error, ConnectionBrokenError) from error

    def _read(self, answer: Any, command: Command, about: str | None = None) -> Any:
        if not isinstance(answer, RedisError):
            return answer
        return RedisAnswerError.of(self._about_all([command], about), answer)

    def _about_all(self, commands: Sequence[Command], otherwise: str | None = None) -> str:
        """Name the address that all these commands send to; where they differ, or send nothing, the publisher's own."""
        verb = self._settings.command[0]
        addresses = {command[1] for command in commands if command[0] == verb}
        return f"{verb} {addresses.pop()!r}" if len(addresses) == 1 else otherwise or self._about

    def _cut(self) -> None:
        """Close the connection so that nothing of what is on its way leaves this machine any more."""
        self._is_cut = True
        reset(self._writer.transport)


def _raise_refusal(answers: Sequence[Any]) -> None:
    """Raise the reason for which Redis has not executed a transaction, unless it was not one."""
    if answers and not isinstance(answers[0], RedisAnswerError):
        for answer in answers:
            if isinstance(answer, RedisAnswerError):
                raise answer


def _session(info: bytes, run: str | None) -> Session:
    fields = _fields(info.decode().split(), "=")
    return Session(fields["id"], fields["addr"], run)


def _fields(lines: Iterable[str], separator: str) -> dict[str, str]:
    return dict(line.partition(separator)[::2] for line in lines)


def _limit(settings: Mapping[bytes, bytes] | Sequence[bytes]) -> int:
    """Read the answer to CONFIG GET, a mapping or a list as the protocol's version has it."""
    values = list(settings.values()) if isinstance(settings, Mapping) else settings[1:]
    return int(values[0]) if values else DEFAULT_MAX_MESSAGE_BYTES
