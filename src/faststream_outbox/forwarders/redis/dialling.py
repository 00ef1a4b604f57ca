"""How a connection to a Redis server comes about, and what redis-py raises instead."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.client import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError

ANSWERS = (ResponseError, AuthenticationError, BusyLoadingError)
"""What redis-py makes of error replies; the latter two are kinds of ConnectionError to it."""


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
        addresses, master_name, its_options = settings.sentinel
        its_options = {
            "retry": Retry(NoBackoff(), 0),
            **(its_options or {**_socket_options(options), "socket_timeout": seconds}),
        }
        seconds *= len(addresses) + 1
        manager = Sentinel(list(addresses), sentinel_kwargs=its_options, **options)  # type: ignore[no-untyped-call]
        sentinels = manager.sentinels
        pool = manager.master_for(master_name).connection_pool
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with time_limit("connecting", seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await connection.disconnect(nowait=True)
        if isinstance(error, ANSWERS):
            raise RedisAnswerError.of("connecting", error) from error
        if isinstance(error, RedisError | OSError) and not isinstance(error, TimeoutError):
            raise trouble("connecting", error) from error
        raise
    finally:
        for sentinel in sentinels:
            await sentinel.aclose()
    return connection, pool


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
    """Give one of two exceptions. redis-py has many for a server that is not there; each would be a line in the log."""
    is_late = isinstance(error, RedisTimeoutError | TimeoutError)
    return (TimeoutError if is_late else kind)(f"{about}: {error}")
