"""The command that runs forwarders: ``relay``."""

import asyncio
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from faststream_outbox.cli.exits import Exit, report
from faststream_outbox.cli.output import show

if TYPE_CHECKING:
    from faststream_outbox.relay.databases import RelayedDatabase
    from faststream_outbox.relay.problems import SettingsError

NEEDED = "pydantic_settings"


def relay(
    file: Annotated[
        Path,
        typer.Argument(
            help="A TOML file: databases, their forwarders, and where these send. docs/relay.md has an example. "
            "Variables such as OUTBOX_RELAY__DATABASES__ORDERS__URL come before what stands in it.",
            show_default=False,
        ),
    ],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Check the file, list what it carries, and end. Opens no connection.")
    ] = False,
    connect: Annotated[
        bool, typer.Option("--connect", help="With --check: also ask each database for its tables.")
    ] = False,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Leave when no message is left to be sent or to be tried again: for cron."),
    ] = False,
    within: Annotated[
        float | None,
        typer.Option(min=0.1, help="With --drain: leave after so many seconds, with 1 if some is left."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=64, help="How many processes; one that dies is started again.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what --check finds, and errors, as JSON.")] = False,
    process: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the forwarders of a file: from one or many databases to Kafka, RabbitMQ, Redis, NATS and MQTT.

    No code of an application is needed. It runs until SIGTERM or Ctrl-C, and then finishes what is in flight. SIGHUP
    reads the file and its secrets again: databases that have changed are stopped and started anew, others go on. The
    log goes to stderr.
    Exits with 0 after SIGTERM and when nothing is left (--drain), with 1 if something is left, with 2 if the file
    cannot be used.
    """
    if connect and not check:
        raise _refused("--connect: goes with --check", as_json=as_json)
    if within is not None and not drain:
        raise _refused("--within: goes with --drain", as_json=as_json)
    if find_spec(NEEDED) is None:
        raise _refused(
            "the relay needs the extra 'relay': pip install '.[relay,kafka]' in a checkout, or the wheel's file name "
            "with the extras of your brokers",
            as_json=as_json,
        )
    # Not before: who only looks at an outbox does not need what this needs.
    from faststream_outbox.relay.problems import SettingsError  # noqa: PLC0415

    try:
        if check:
            code = _check(file, connect=connect, as_json=as_json)
        elif processes > 1:
            code = _run_several(file, processes, drain=drain, within=within)
        else:
            code = _run(file, drain=drain, within=within, process=process)
    except SettingsError as error:
        _report_problems(error, as_json=as_json)
        code = Exit.USAGE
    raise typer.Exit(code)


def _refused(message: str, *, as_json: bool) -> typer.Exit:
    report(message, as_json=as_json)
    return typer.Exit(Exit.USAGE)


def _check(file: Path, *, connect: bool, as_json: bool) -> int:
    from faststream_outbox.relay.relay import Relay  # noqa: PLC0415

    async def check() -> int:
        relay = Relay(file, logging.getLogger(__name__))
        _show_carried(relay.databases, as_json=as_json)
        problems = await relay.problems_of_databases() if connect else []
        for problem in problems:
            report(f"{file}: {problem}", as_json=as_json)
        return Exit.FOUND if problems else Exit.OK

    return asyncio.run(check())


def _run(file: Path, *, drain: bool, within: float | None, process: int | None) -> int:
    from faststream_outbox.relay.running import Ending, run  # noqa: PLC0415

    ending = asyncio.run(run(file, drain=drain, within=within, number=process))
    return {Ending.LEFT: Exit.FOUND, Ending.INTERRUPTED: Exit.INTERRUPTED}.get(ending, Exit.OK)


def _run_several(file: Path, count: int, *, drain: bool, within: float | None) -> int:
    from faststream_outbox.relay.processes import Processes  # noqa: PLC0415
    from faststream_outbox.relay.relay import Relay  # noqa: PLC0415
    from faststream_outbox.relay.running import LOGGER, log_to_stderr  # noqa: PLC0415

    arguments = ["relay", str(file), *(["--drain"] if drain else []), *(["--within", str(within)] if within else [])]

    async def run() -> int:
        log = logging.getLogger(LOGGER)
        # What is wrong in the file is said once, and nothing is started.
        log_to_stderr(Relay(file, log))
        return await Processes(arguments, count, log, restarts=not drain).run()

    return asyncio.run(run())


def _report_problems(error: "SettingsError", *, as_json: bool) -> None:
    if as_json:
        problems = [{"place": problem.place, "problem": problem.text} for problem in error.problems]
        report(str(error), as_json=True, problems=problems)
        return
    for problem in error.problems:
        report(f"{error.file}: {problem}", as_json=False)


def _show_carried(databases: "Sequence[RelayedDatabase]", *, as_json: bool) -> None:
    carried = [(database.name, each.queues, each.name) for database in databases for each in database.broker.forwarders]
    table = Table("database", "queues", "forwarder", box=None, pad_edge=False)
    for database, queues, name in carried:
        table.add_row(database, ", ".join(queues), name)
    answer = [{"database": database, "queues": queues, "forwarder": name} for database, queues, name in carried]
    show(answer, table, as_json=as_json)
