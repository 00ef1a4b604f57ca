"""Runs the forwarders of a file, follows its changes, and finds out when nothing is left."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from faststream_outbox.relay.connections import Budget
from faststream_outbox.relay.databases import RelayedDatabase, make_databases
from faststream_outbox.relay.drain import Drain
from faststream_outbox.relay.loading import load
from faststream_outbox.relay.problems import SettingsError
from faststream_outbox.relay.scraping import make_scrape
from faststream_outbox.relay.settings import RelaySettings

UNTIL_RESTART = ("http", "connections")
"""Sections that a reload does not change."""


class Relay:
    """The databases of a file, and what is done in all of them.

    Args:
        file: The file.
        log: Where it writes, and its brokers do.

    Raises:
        SettingsError: The file cannot be used.

    Example::

        relay = Relay(Path("relay.toml"), logging.getLogger("relay"))
        await relay.start()
        ...
        await relay.stop()
    """

    def __init__(self, file: Path, log: logging.Logger) -> None:
        self.file = file
        """The file."""
        self._log = log
        self.settings: RelaySettings = load(file)
        self.scrape = make_scrape(self.settings, str(file))
        """Its metrics, if the file wants some."""
        self._databases = {each.name: each for each in self._make(self.settings)}
        self.budget = Budget(self.settings.connections.most)
        self._sweeping: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._old_secrets: set[str] = set()
        """Those of databases that were stopped: their clients' last words may come later."""
        self._not_started: set[str] = set()
        """Names of databases that could not be started at a reload."""

    @property
    def databases(self) -> Sequence[RelayedDatabase]:
        """The databases as they run now."""
        return list(self._databases.values())

    @property
    def secrets(self) -> Sequence[str]:
        """What must not be shown, the longest first: one may be a part of another."""
        now = {secret for database in self.databases for secret in database.secrets}
        return sorted(now | self._old_secrets, key=len, reverse=True)

    @property
    def summary(self) -> str:
        """How much it runs, in words."""
        forwarders = sum(len(database.broker.forwarders) for database in self.databases)
        return f"{forwarders} forwarders of {len(self.databases)} databases"

    async def start(self) -> None:
        """Start all forwarders. No database and no destination has to be up."""
        self._sweeping = asyncio.create_task(self._sweep(), name="relay-connections")
        async with self._changing:
            await asyncio.gather(*map(self._start, self.databases))

    async def stop(self) -> None:
        """Stop all forwarders; see ``OutboxBroker.stop``."""
        async with self._changing:
            await asyncio.gather(*map(self._stop_surely, self.databases))
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping

    async def reload(self) -> bool:
        """Read the file and its secrets again, and follow it.

        A database that is as before goes on. One that has changed is stopped, cleanly, and started anew; what has gone
        is stopped, and what is new is started. If the file cannot be used, everything goes on as before. So it does if
        the databases of the file do not fit the connections that the relay was started with.

        Returns:
            Whether the file could be used.
        """
        async with self._changing:
            read = self._read_again()
            if read is None:
                self._log.error("the relay goes on as before; correct %s, and send SIGHUP again", self.file)
                return False
            settings, made = read
            kept = {
                name
                for name, each in made.items()
                if name in self._databases and each.is_like(self._databases[name]) and name not in self._not_started
            }
            ending = [each for name, each in self._databases.items() if name not in kept]
            beginning = [each for name, each in made.items() if name not in kept]
            await asyncio.gather(*map(self._stop_surely, ending))
            self._old_secrets.update(secret for each in ending for secret in each.secrets)
            self._databases = {name: self._databases[name] if name in kept else each for name, each in made.items()}
            self.settings = settings
            await asyncio.gather(*map(self._start_if_possible, beginning))
        self._log.info(
            "%s was read again: %s; %d databases stopped, %d started, %d left as they were",
            self.file,
            self.summary,
            len(ending),
            len(beginning),
            len(kept),
        )
        return True

    def _read_again(self) -> tuple[RelaySettings, dict[str, RelayedDatabase]] | None:
        """Return what the file says now, with what stays until a restart; None if it cannot be: the log says why."""
        try:
            settings = load(self.file)
            self._warn_of_what_stays(settings)
            stays = {name: getattr(self.settings, name) for name in UNTIL_RESTART}
            settings = settings.model_copy(update=stays)
            return settings, {each.name: each for each in self._make(settings)}
        except SettingsError as error:
            for problem in error.problems:
                self._log.error("%s: %s", error.file, problem)
        except Exception as error:  # noqa: BLE001 - its text may have a secret that is not known yet
            self._log.error("%s cannot be used: %s", self.file, type(error).__name__)
        return None

    async def problems_of_databases(self) -> list[str]:
        """Ask each database, one after the other, and return what keeps it from being used; nothing is started."""
        found: list[str] = []
        for database in self.databases:
            database.bound(self.budget)
            try:
                differences = await database.broker.admin.differences()
                found += [
                    f"databases.{database.name}: {table}: {problem}"
                    for table, problems in differences.items()
                    for problem in problems
                ]
            except Exception as error:  # noqa: BLE001 - whatever it is, the database cannot be used
                found.append(f"databases.{database.name}: {database.broker.admin.explain(error).text}")
            finally:
                await database.dispose()
        return [self.without_secrets(text) for text in found]

    def without_secrets(self, text: str) -> str:
        """Return a text in which what is secret is replaced."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    async def wait_until_drained(self) -> None:
        """Return when no queue of its forwarders has a row that is ready, due, or to be tried again.

        Timers whose time has not come are not waited for, nor are dead letters.
        """
        await asyncio.gather(*(Drain(each, self._log).wait() for each in self.databases))

    async def left(self) -> list[str]:
        """Return, in words, which queues of its forwarders have rows left."""
        return [line for each in self.databases for line in (await Drain(each, self._log).look()).lines]

    def _make(self, settings: RelaySettings) -> list[RelayedDatabase]:
        return make_databases(settings, str(self.file), self._log, None if self.scrape is None else self.scrape.metrics)

    async def _start(self, database: RelayedDatabase) -> None:
        database.bound(self.budget)
        await database.broker.start()

    async def _start_if_possible(self, database: RelayedDatabase) -> None:
        self._not_started.discard(database.name)
        try:
            await self._start(database)
        except Exception:  # noqa: BLE001 - the others are started all the same
            self._not_started.add(database.name)
            self._log.exception(
                "[%s] could not be started, and nothing is carried from it; send SIGHUP to try again", database.name
            )

    async def _stop_surely(self, database: RelayedDatabase) -> None:
        """Stop a database. What fails is said in the log, and keeps neither the others nor what comes next."""
        try:
            try:
                await database.broker.stop()
            finally:
                await database.dispose()
        except Exception:  # noqa: BLE001 - the others are stopped all the same
            self._log.exception("[%s] did not stop cleanly: what was in flight may be sent again", database.name)

    def _warn_of_what_stays(self, settings: RelaySettings) -> None:
        for section in UNTIL_RESTART:
            if getattr(settings, section) != getattr(self.settings, section):
                self._log.warning("%s: [%s] has changed, and needs a restart", self.file, section)

    async def _sweep(self) -> None:
        """Close connections that nobody uses, again and again."""
        seconds = self.settings.connections.idle_seconds
        while True:
            await asyncio.sleep(max(seconds / 2, 0.1))
            try:
                await self.budget.close_idle(seconds)
            except Exception:  # noqa: BLE001 - the next one may be closed
                self._log.warning("a connection that nobody uses could not be closed", exc_info=True)
