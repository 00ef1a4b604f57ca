"""What all commands share: the options that name an outbox, and what becomes of errors."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from sqlalchemy.exc import SQLAlchemyError

from faststream_outbox._store.postgres.advice import explain
from faststream_outbox.cli.choice import OPTIONS as CHOICES
from faststream_outbox.cli.choice import Choice
from faststream_outbox.cli.dsn import FILE_VARIABLE, VARIABLE
from faststream_outbox.cli.exits import CommandError, Exit, report
from faststream_outbox.cli.site import Site
from faststream_outbox.exceptions import ConfigError

DEFAULT_TIMEOUT = 30.0

Command: TypeAlias = Callable[..., Awaitable[Exit]]

_PANEL = "The outbox"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_PANEL)]

_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "dsn": (
        Annotated[
            str | None,
            typer.Option(
                envvar=VARIABLE,
                show_envvar=True,
                help="The database: postgresql://user@host/database. A password in it is never shown; better, "
                "keep that in --dsn-file, PGPASSWORD or ~/.pgpass.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "dsn_file": (
        Annotated[
            Path | None,
            typer.Option(
                envvar=FILE_VARIABLE,
                help="A file that holds the address.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "table": (
        Annotated[str, typer.Option(envvar="OUTBOX_TABLE", help="The outbox table.", rich_help_panel=_PANEL)],
        "outbox",
    ),
    "schema": (
        Annotated[
            str | None,
            typer.Option(
                envvar="OUTBOX_SCHEMA",
                help="Its schema; without it, the search path's.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "dlq_table": (
        Annotated[
            str | None,
            typer.Option(
                envvar="OUTBOX_DLQ_TABLE",
                help="The dead-letter table; without it, TABLE_dlq if there is one.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "position_table": (
        Annotated[
            str | None,
            typer.Option(
                envvar="OUTBOX_POSITION_TABLE",
                help="The position table; without it, TABLE_position if there is one.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "control_table": (
        Annotated[
            str | None,
            typer.Option(
                envvar="OUTBOX_CONTROL_TABLE",
                help="The control table; without it, TABLE_control if there is one.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "inbox_table": (
        Annotated[
            str | None,
            typer.Option(
                envvar="OUTBOX_INBOX_TABLE",
                help="The inbox table, if there is one in this database.",
                rich_help_panel=_PANEL,
                show_default=False,
            ),
        ],
        None,
    ),
    "timeout": (
        Annotated[
            float,
            typer.Option(min=0.1, help="Seconds that one statement may take.", rich_help_panel=_PANEL),
        ],
        DEFAULT_TIMEOUT,
    ),
    "as_json": (Json, False),
}


def command(work: Command) -> Callable[..., None]:
    """Return a function for Typer that takes the options of an outbox beside those of ``work``.

    Args:
        work: Gets a ``Site`` first, then a ``Choice`` if it has a parameter of this name, and its own options; returns
            the exit code.
    """
    own = inspect.signature(work, eval_str=True).parameters
    chooses = "choice" in own

    @wraps(work)
    def run(**given: Any) -> None:
        site = Site(**{name: given.pop(name) for name in _OPTIONS})
        if chooses:
            given["choice"] = Choice(**{name: given.pop(name) for name in CHOICES})
        raise typer.Exit(_run(site, lambda: work(site, **given)))

    parameters = [
        *(own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in own if name not in {"site", "choice"}),
        *_parameters(CHOICES if chooses else {}),
        *_parameters(_OPTIONS),
    ]
    described: Any = run
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del described.__wrapped__
    return run


def _parameters(options: Mapping[str, tuple[Any, Any]]) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in options.items()
    ]


def _run(site: Site, work: Callable[[], Awaitable[Exit]]) -> Exit:
    async def run() -> Exit:
        return await work()

    try:
        return asyncio.run(run())
    except CommandError as error:
        message, code = str(error), error.code
    except ConfigError as error:
        message, code = str(error), Exit.USAGE
    except KeyboardInterrupt:
        message, code = "interrupted", Exit.INTERRUPTED
    except (SQLAlchemyError, OSError, TimeoutError, ValueError) as error:
        message, code = in_words(error), Exit.DATABASE
    except Exception as error:
        # asyncpg's own, while a connection is opened.
        if type(error).__module__.partition(".")[0] != "asyncpg":
            raise
        message, code = in_words(error), Exit.DATABASE
    report(site.without_secrets(message), as_json=site.as_json)
    return code


def in_words(error: BaseException) -> str:
    """Return what an error of the database means for the person at the terminal."""
    text = explain(error).text
    # The advice is for the code of an application; here, options say the same.
    for words, option in (
        ("the engine's URL", "--dsn"),
        ("the engine's role", "this role"),
        ("the engine's database", "--dsn"),
        (
            "run the migration that creates what make_outbox_table and make_dlq_table declare",
            "run faststream-outbox ddl create, or correct --table, --schema",
        ),
        ("did not answer in time", "did not answer in time; faststream-outbox doctor says whether a lock blocks it"),
        (
            "the table is not what the code declares: run the migration; validate_schema() names each difference",
            "the table is not what this release declares: faststream-outbox check names each difference",
        ),
    ):
        text = text.replace(words, option)
    return text
