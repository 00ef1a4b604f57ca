"""Checks what a broker is made with."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._values.limits import DEFAULT_MAX_PAYLOAD_BYTES
from faststream_outbox._values.outcome import TextOf, describe
from faststream_outbox._values.renderer import Renderer
from faststream_outbox.broker.options import BrokerOptions
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.schema import make_dlq_table, make_outbox_control_table, make_outbox_table, make_position_table

DEFAULT_GRACEFUL_TIMEOUT = 15.0


def check_engine(argument: str, engine: Any) -> None:
    """Raise a ConfigError for what is no engine on asyncpg."""
    if not isinstance(engine, AsyncEngine):
        msg = f"{argument}: must be an AsyncEngine, as create_async_engine makes it, got {type(engine).__name__}"
        raise ConfigError(msg)
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "asyncpg"):
        msg = f"{argument}: must be on postgresql+asyncpg, got {engine.dialect.name}+{engine.dialect.driver}"
        raise ConfigError(msg)


def check_tables(outbox: Any, dlq: Any, position: Any, control: Any) -> None:
    """Raise a ConfigError for what is no table of its factory; the first is needed, the others may be None."""
    check_table("outbox_table", outbox, made_by=make_outbox_table)
    for argument, table, made_by in (
        ("dlq_table", dlq, make_dlq_table),
        ("position_table", position, make_position_table),
        ("control_table", control, make_outbox_control_table),
    ):
        if table is not None:
            check_table(argument, table, made_by=made_by)


def check_table(argument: str, table: Any, *, made_by: Callable[[MetaData], Table]) -> None:
    """Raise a ConfigError for what is no table of its factory."""
    if not isinstance(table, Table):
        msg = f"{argument}: must be a Table, as {made_by.__name__} makes it, got {type(table).__name__}"
        raise ConfigError(msg)
    missing = [column.name for column in made_by(MetaData()).columns if column.name not in table.columns]
    if missing:
        msg = f"{argument}: {table.fullname!r} lacks {', '.join(missing)}; make it with {made_by.__name__}"
        raise ConfigError(msg)


def text_of_exceptions(options: BrokerOptions, warn: Callable[[str], None]) -> TextOf:
    """Return what puts exceptions into the words that are stored; raise a ConfigError for what cannot be called."""
    render: Any = options.get("exception_renderer")
    if render is None:
        return describe
    if not callable(render):
        msg = f"exception_renderer: must be a function of an exception that returns a str, got {type(render).__name__}"
        raise ConfigError(msg)
    return Renderer(render, warn)


def payload_limit(options: BrokerOptions) -> int:
    """Return the largest encoded body in bytes."""
    limit: Any = options.get("max_payload_bytes", DEFAULT_MAX_PAYLOAD_BYTES)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        msg = f"max_payload_bytes: must be an integer of 1 or more, got {limit!r}"
        raise ConfigError(msg)
    return limit


def graceful_timeout(options: BrokerOptions) -> float | None:
    """Return the seconds that a stop waits; None waits for ever."""
    timeout: Any = options.get("graceful_timeout", DEFAULT_GRACEFUL_TIMEOUT)
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout < float("inf"):
        msg = f"graceful_timeout: must be a number of seconds of 0 or more, or None, got {timeout!r}"
        raise ConfigError(msg)
    return timeout


def public_url(engine: AsyncEngine) -> str:
    """Return where the database is, without how to get in."""
    url = engine.url
    public = URL.create("postgresql", host=url.host or "localhost", port=url.port or 5432, database=url.database)
    return public.render_as_string()
