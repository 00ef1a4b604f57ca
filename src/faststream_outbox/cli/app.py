"""The commands and their names."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from faststream_outbox.cli import checks, ddl, dead, looks, page, pausing
from faststream_outbox.cli.command import Command, command
from faststream_outbox.cli.relay import relay

EXIT_CODES = (
    "Exit codes: 0 done, and the answer is yes; 1 the answer is no (tables differ, a problem, no such letter, no "
    "pause); 2 the command was given wrongly; 3 the database cannot be reached or refuses; 130 interrupted."
)

app = typer.Typer(
    help="Look at an outbox in PostgreSQL, find out why it stands, pause it, and see to its dead letters.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    # A traceback would show variables, and with them passwords.
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
)
_dead = typer.Typer(no_args_is_help=True, help="Dead letters: list, count, show, replay, discard them.")
_ddl = typer.Typer(no_args_is_help=True, help="Print SQL for the tables; runs nothing, needs no database.")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - click calls it so
    if wanted:
        typer.echo(f"faststream-outbox {version('faststream-outbox')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    shown_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Look at an outbox in PostgreSQL, find out why it stands, pause it, and see to its dead letters."""


_COMMANDS: Sequence[tuple[str, Command]] = (
    ("status", looks.status),
    ("queues", looks.queues),
    ("watch", looks.watch),
    ("peek", looks.peek),
    ("check", checks.check),
    ("doctor", checks.doctor),
    ("pause", pausing.pause),
    ("resume", pausing.resume),
    ("pauses", pausing.pauses),
    ("audit", pausing.audit),
    ("page", page.page),
)
_OF_DEAD_LETTERS: Sequence[tuple[str, Command]] = (
    ("list", dead.list_),
    ("groups", dead.groups),
    ("show", dead.show_),
    ("replay", dead.replay),
    ("discard", dead.discard),
)
for name, work in _COMMANDS:
    app.command(name)(command(work))
for name, work in _OF_DEAD_LETTERS:
    _dead.command(name)(command(work))
for name, print_sql in (
    ("create", ddl.create),
    ("upgrade", ddl.upgrade),
    ("grants", ddl.grants),
    ("autovacuum", ddl.autovacuum),
):
    _ddl.command(name)(print_sql)
app.command("relay")(relay)
app.add_typer(_dead, name="dead")
app.add_typer(_ddl, name="ddl")
