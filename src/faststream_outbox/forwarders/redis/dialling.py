"""How a connection to a Redis server comes about, and what redis-py raises instead."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.client import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from faststream_outbox._faststream.redis import SentinelAddress
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError

ANSWERS = (ResponseError, AuthenticationError, BusyLoadingError)
"""The exceptions of redis-py for error replies; in redis-py the latter two are ConnectionErrors."""


async def dial(settings: RedisSettings) -> tuple[AbstractConnection, ConnectionPool]:
    """Connect and log in, at the server that the sentinels name if there are some; leaves nothing open when it fails.

    Raises:
        RedisAnswerError: The server does not want us.
        ConnectionError: No server answers.
        TimeoutError: Not in time.
    """
    # Where redis-py has a time-out for sending, it loses cancellations (those of asyncio.wait_for in Python 3.11).
    options = {**settings.client_options, "socket_timeout": None}
    seconds = settings.usual_timeout
    sentinels: Sequence[Redis] = ()
    if settings.sentinel is None:
        pool = ConnectionPool(**options)
    else:
        manager = _manager(settings.sentinel, options, seconds)
        seconds *= 2
        sentinels = manager.sentinels
        pool = manager.master_for(settings.sentinel.master_name).connection_pool
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with time_limit("connecting", seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if settings.sentinel is not None and isinstance(error, MasterNotFoundError):
            # Some versions of redis-py put the sentinels' passwords into its text.
            raise ConnectionError(_no_master(settings.sentinel)) from None
        if isinstance(error, ANSWERS):
            raise RedisAnswerError.of("connecting", error) from error
        if isinstance(error, RedisError | OSError) and not isinstance(error, TimeoutError):
            raise trouble("connecting", error) from error
        raise
    finally:
        for sentinel in sentinels:
            await sentinel.aclose()
    return connection, pool


def _manager(address: SentinelAddress, options: Mapping[str, Any], seconds: float) -> Sentinel:
    """Return the manager that asks the sentinels one by one, each for a part of the time, since some may be dead."""
    its_options = dict(address.sentinel_kwargs or _socket_options(options))
    share = seconds / len(address.sentinels)
    for name in ("socket_timeout", "socket_connect_timeout"):
        given = its_options.get(name)
        its_options[name] = share if given is None else min(given, share)
    its_options.setdefault("retry", Retry(NoBackoff(), 0))
    secure = options.get("connection_class")
    if secure is not None:
        # FastStream's own class for an encrypted connection, which knows nothing of sentinels.
        options = {**options, "connection_class": type("SecureConnection", (SentinelManagedConnection, secure), {})}
    manager = Sentinel(list(address.sentinels), sentinel_kwargs=its_options, **options)  # type: ignore[no-untyped-call]
    if secure is not None and "ssl" not in its_options:
        # In plain text anybody on the way could name another server, and read the sentinels' password.
        for sentinel in manager.sentinels:
            sentinel.connection_pool.connection_class = secure
    return manager


def _no_master(address: SentinelAddress) -> str:
    asked = ", ".join(f"{host}:{port}" for host, port in address.sentinels)
    return (
        f"connecting: no server is known for {address.master_name!r}; the sentinels at {asked} do not answer, "
        "or want another login, or watch none of this name that works"
    )


def _socket_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith("socket_")}


@asynccontextmanager
async def time_limit(about: str, seconds: float | None) -> AsyncIterator[None]:
    """Bound what is done within, and say in the TimeoutError what it was."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        msg = f"{about}: no answer in {seconds:g} s"
        raise TimeoutError(msg) from error


def trouble(about: str, error: Exception, kind: type[ConnectionError] = ConnectionError) -> Exception:
    """Return one of two exceptions: redis-py has many for a missing server, each with a line in the log."""
    is_late = isinstance(error, RedisTimeoutError | TimeoutError)
    return (TimeoutError if is_late else kind)(f"{about}: {error}")
