"""Makes of each database of a relay's file what runs: an engine, a broker, and its forwarders."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._values.dsn import as_asyncpg_reads, forms_of, passwords_of
from faststream_outbox.admin import OutboxAdmin, make_admin
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.metrics.metrics import Metrics
from faststream_outbox.relay.connections import Budget, FrugalPool
from faststream_outbox.relay.destinations import UnfitError, make_publisher, read_url, secrets_of_client
from faststream_outbox.relay.problems import Problem, SettingsError, place_of
from faststream_outbox.relay.settings import DatabaseSettings, ForwarderSettings, RelaySettings, RetrySettings
from faststream_outbox.retry import ConstantRetry, ExponentialRetry, LinearRetry, NoRetry, RetryStrategy
from faststream_outbox.schema import make_dlq_table, make_outbox_control_table, make_outbox_table, make_position_table

CONNECT_SECONDS = 10.0

MIN_LOOK_SECONDS = 1.0
LOOK_SECONDS = 1.5
"""How often at least a forwarder looks where nothing is found; all forwarders of a process ..."""
LOOKS_APART = 0.2
"""... leave so many seconds between their looks together: 100 forwarders look every 20 s. Each look takes a connection,
and what wakes a forwarder is a notification."""

PLAIN_OPTIONS = tuple(ForwarderOptions.__optional_keys__ - {"transform", "retry_strategy", "max_fetch_interval"})
"""Options of a forwarder that stand in the file as they are."""

_STRATEGIES: Mapping[str, type[RetryStrategy]] = {
    "exponential": ExponentialRetry,
    "linear": LinearRetry,
    "constant": ConstantRetry,
    "none": NoRetry,
}


@dataclass(frozen=True, kw_only=True)
class RelayedDatabase:
    """A database of the file, ready to be started.

    Attributes:
        name: As the file has it.
        settings: As the file has it.
        secrets: What was read from files and URLs, and must not be shown.
        engine: For hand-overs.
        listen_engine: For listening, if that is another one.
        broker: With the forwarders.
        onlooker: Looks at its queues, and not at its dead-letter table, which the role of consumers cannot read.
    """

    name: str
    settings: DatabaseSettings
    secrets: tuple[str, ...] = field(repr=False)
    engine: AsyncEngine
    listen_engine: AsyncEngine | None
    broker: OutboxBroker
    onlooker: OutboxAdmin

    def is_like(self, other: "RelayedDatabase") -> bool:
        """Return whether another one would run in the same way; files with certificates are not compared."""
        return (self.settings, self.secrets) == (other.settings, other.secrets)

    @property
    def most_connections(self) -> int:
        """The most connections to it beside the listening one."""
        wanted = sum(forwarder.most_connections for forwarder in self.broker.forwarders)
        return self.settings.connections or wanted + 1

    @property
    def listening(self) -> int:
        """How many connections listen: one, or none."""
        return int(self.settings.listen)

    def bound(self, budget: Budget) -> None:
        """Count its connections among those of all databases."""
        for engine in (self.engine, self.listen_engine):
            if engine is not None and isinstance(engine.pool, FrugalPool):
                engine.pool.bound(budget, self.most_connections)

    async def dispose(self) -> None:
        """Close what the engines have."""
        for engine in (self.engine, self.listen_engine):
            if engine is not None:
                await engine.dispose()


class Problems:
    """Gathers what is wrong, so that all of it is named at once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: Iterable[str | int], text: str) -> None:
        """Take down one more."""
        self.found.append(Problem(place_of(path), text))

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """Take down what is raised within, with the place where it happens, and go on."""
        try:
            yield
        except UnfitError as error:
            self.add((*path, *error.key.split(".")), str(error))
        except ConfigError as error:
            # "batch_size: must be ..." or "max_attempts must be ...": the key comes first.
            key, found, text = str(error).partition(": ")
            if found and key.isidentifier():
                self.add((*path, key), text)
            else:
                self.add(path, str(error))
        except Exception as error:  # noqa: BLE001 - it has a place, and its text may have a secret
            self.add(path, f"cannot be used: {type(error).__name__}")


def make_databases(
    settings: RelaySettings, file: str, log: logging.Logger, metrics: Metrics | None = None
) -> list[RelayedDatabase]:
    """Return what runs, with all checked that can be checked without a server.

    Args:
        settings: From ``load``.
        file: The file's name, for problems.
        log: Where the brokers write; each line begins with the database's name.
        metrics: Of the process.

    Raises:
        SettingsError: Names every place.
    """
    problems = Problems()
    count = sum(len(database.forwarders) for database in settings.databases.values())
    made = []
    for name, database in settings.databases.items():
        with problems.at("databases", name):
            made.append(_Maker(name, database, problems, log, count=count, metrics=metrics).make())
    if not problems.found:
        _check_connections(settings, made, problems)
    if problems.found:
        raise SettingsError(file, problems.found)
    return made


def _check_connections(settings: RelaySettings, databases: Sequence[RelayedDatabase], problems: Problems) -> None:
    """Refuse bounds at which lanes would wait for one another for ever.

    A lane with ``exactly_once`` takes a second connection while it holds one. So there must be more than such lanes.
    """
    doubled = 0
    for database in databases:
        own = sum(each.most_connections // 2 for each in database.broker.forwarders if each.exactly_once)
        doubled += own
        given = database.settings.connections
        if given is not None and given <= own:
            problems.add(
                ("databases", database.name, "connections"),
                f"must be at least {own + 1} for the lanes with exactly_once",
            )
    listening = sum(database.listening for database in databases)
    least = listening + doubled + 1
    most = settings.connections.most
    if most is not None and most < least:
        text = f"must be at least {least}: one to listen for each of {listening} databases, and {doubled + 1} more"
        problems.add(("connections", "most"), text)


class _Maker:
    """Makes one database of the file."""

    def __init__(
        self,
        name: str,
        settings: DatabaseSettings,
        problems: Problems,
        log: logging.Logger,
        *,
        count: int,
        metrics: Metrics | None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._problems = problems
        self._log = log
        self._count = count
        self._metrics = metrics and metrics.named(name)
        self._secrets: list[str] = []
        self._brokers: dict[Any, Any] = {}
        self._metadata = MetaData()

    def make(self) -> RelayedDatabase:
        settings = self._settings
        engine = self._engine("url", is_pooled=settings.pooled)
        listens_apart = settings.listen_url is not None or settings.listen_url_file is not None
        listen_engine = self._engine("listen_url", is_pooled=False) if listens_apart else None
        outbox_table = self._table("table", make_outbox_table, settings.table)
        control_table = self._optional("control_table", make_outbox_control_table)
        broker = OutboxBroker(
            engine,
            outbox_table=outbox_table,
            dlq_table=self._optional("dlq_table", make_dlq_table),
            position_table=self._optional("position_table", make_position_table),
            control_table=control_table,
            listen=settings.listen,
            listen_engine=listen_engine,
            graceful_timeout=settings.graceful_timeout,
            logger=_PrefixedLog(self._log, {"database": self._name}),
            apply_types=False,
            metrics=self._metrics,
        )
        for number, forwarder in enumerate(settings.forwarders):
            with self._problems.at("databases", self._name, "forwarders", number):
                self._add(broker, forwarder)
        return RelayedDatabase(
            name=self._name,
            settings=settings,
            secrets=tuple(self._secrets),
            engine=engine,
            listen_engine=listen_engine,
            broker=broker,
            onlooker=make_admin(engine, outbox_table=outbox_table, control_table=control_table),
        )

    def _optional(self, key: str, make: Callable[..., Table]) -> Table | None:
        name = getattr(self._settings, key)
        return None if name is None else self._table(key, make, name)

    def _table(self, key: str, make: Callable[..., Table], name: str) -> Table:
        try:
            return make(self._metadata, name, schema=self._settings.schema_)
        except ConfigError as error:
            argument, _, text = str(error).partition(": ")
            raise UnfitError(argument.replace("table_name", key), text) from error

    def _add(self, broker: OutboxBroker, settings: ForwarderSettings) -> None:
        url = self._read("to", settings.to, settings.to_file)
        server = read_url(url)
        if settings.password_file is not None:
            if server.user is None and server.scheme not in {"redis", "rediss"}:
                raise UnfitError("password_file", "the URL has no user; write user@host")
            server = changed(
                server, password=self._secret("password_file", settings.password_file), user=server.user or ""
            )
        self._secrets += [*passwords_of(url), *forms_of(server.password or ""), *secrets_of_client(settings.client)]
        publisher = make_publisher(server, settings, self._brokers)
        options: dict[str, Any] = {
            name: value for name in PLAIN_OPTIONS if (value := getattr(settings, name)) is not None
        }
        if settings.max_fetch_interval is None:
            longest = self._longest_interval(settings)
            # The first looks after a start, and after each message, would be as many as there are databases.
            options = {
                "min_fetch_interval": max(MIN_LOOK_SECONDS, longest / 2),
                **options,
                "max_fetch_interval": longest,
            }
        else:
            options["max_fetch_interval"] = settings.max_fetch_interval
        if settings.retry_strategy is not None:
            options["retry_strategy"] = _strategy(settings.retry_strategy)
        if settings.transform is not None:
            options["transform"] = _imported(settings.transform)
        forwarder = broker.forwarder(settings.queues, to=publisher, **options)
        try:
            forwarder.check()
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ConfigError) or not settings.client:
                raise
            # Some clients look at their options only when they are used.
            raise UnfitError("client", f"has a value of the wrong kind: {type(error).__name__}") from None

    def _longest_interval(self, settings: ForwarderSettings) -> float:
        is_notified = self._settings.listen and (not self._settings.pooled or self._settings.listen_url is not None)
        longest = max(LOOK_SECONDS, LOOKS_APART * self._count) if is_notified else LOOK_SECONDS
        return max(longest, settings.min_fetch_interval or 0.0)

    def _engine(self, key: str, *, is_pooled: bool) -> AsyncEngine:
        url = self._read(key, getattr(self._settings, key), getattr(self._settings, f"{key}_file"))
        dsn = as_asyncpg_reads(url)
        if dsn is None:
            raise UnfitError(key, "must begin with postgresql://, and be a URL")
        self._secrets.extend(passwords_of(dsn))
        connect_args: dict[str, Any] = {
            "dsn": dsn,
            "timeout": CONNECT_SECONDS,
            "server_settings": {"application_name": "faststream-outbox relay"},
        }
        if self._settings.password_file is not None:
            connect_args["password"] = self._secret("password_file", self._settings.password_file)
        if is_pooled:
            connect_args |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
            }
        return create_async_engine(
            # asyncpg reads the address itself, with several hosts, sslmode, ~/.pgpass and variables such as PGPASSWORD.
            "postgresql+asyncpg://",
            hide_parameters=True,
            connect_args=connect_args,
            poolclass=FrugalPool,
        )

    def _read(self, key: str, value: SecretStr | None, file: Path | None) -> str:
        """Return a URL that stands in the file, or in a file of its own."""
        if (value is None) == (file is None):
            raise UnfitError(key, f"write {key} or {key}_file" + ("" if value is None else ", not both"))
        return self._secret(f"{key}_file", file) if file is not None else str(value and value.get_secret_value())

    def _secret(self, key: str, file: Path) -> str:
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UnfitError(key, f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UnfitError(key, f"{file} cannot be read: it is not UTF-8") from error
        if not secret:
            raise UnfitError(key, f"{file} is empty")
        self._secrets += forms_of(secret)
        return secret


class _PrefixedLog(logging.LoggerAdapter[logging.Logger]):
    """Says of each line which database it is about."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        return f"[{self.extra['database'] if self.extra else ''}] {msg}", kwargs


def _strategy(settings: RetrySettings) -> RetryStrategy:
    given = settings.model_dump(exclude_unset=True, exclude={"kind"})
    if given.get("max_attempts") == 0:
        given["max_attempts"] = None
    strategy = _STRATEGIES[settings.kind]
    known = set(getattr(strategy, "__dataclass_fields__", ()))
    for name in given:
        if name not in known:
            shown = f", which has {', '.join(sorted(known))}" if known else ""
            raise UnfitError(f"retry_strategy.{name}", f"is not for kind = {settings.kind!r}{shown}")
    try:
        return strategy(**given)
    except ConfigError as error:
        raise UnfitError("retry_strategy", str(error)) from error


def _imported(name: str) -> Any:
    module, found, function = name.partition(":")
    if not (found and module and function):
        raise UnfitError("transform", "must be package.module:function")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UnfitError("transform", str(error)) from error
    except Exception as error:
        raise UnfitError("transform", f"{module} cannot be imported: {type(error).__name__}") from error
