"""Which dead letters a command is about."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from faststream_outbox.admin.dead_letters import DeadLetterOptions
from faststream_outbox.cli.exits import CommandError, Exit

_PANEL = "Which dead letters: those that agree with all that is given"
_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|min|m|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "m": "minutes", "h": "hours", "d": "days"}


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_PANEL, show_default=False)


OPTIONS: dict[str, tuple[Any, Any]] = {
    "queue": (Annotated[str | None, _option("Of this queue.")], None),
    "key": (Annotated[str | None, _option("Of this key.")], None),
    "ids": (Annotated[list[int] | None, _option("With this id; may be given several times.", "--id")], None),
    "reason": (Annotated[str | None, _option("That failed for this reason, such as retries_exhausted.")], None),
    "exception": (Annotated[str | None, _option("Whose exception's text contains this, such as TimeoutError.")], None),
    "kind": (Annotated[str | None, _option("Whose exception has just this type, as dead groups shows it.")], None),
    "failed_after": (Annotated[str | None, _option("That failed then or later: 2030-01-31T15:00, in UTC.")], None),
    "failed_before": (Annotated[str | None, _option("That failed before then.")], None),
    "older_than": (Annotated[str | None, _option("That failed longer ago than this: 90s, 15min, 2h, 7d.")], None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the options of a command say."""

    queue: str | None
    key: str | None
    ids: list[int] | None
    reason: str | None
    exception: str | None
    kind: str | None
    failed_after: str | None
    failed_before: str | None
    older_than: str | None

    def options(self) -> DeadLetterOptions:
        """Return the options of ``DeadLetters``' methods.

        Raises:
            CommandError: A time or a span cannot be read.
        """
        options = DeadLetterOptions(
            queue=self.queue,
            key=self.key,
            reason=self.reason,
            exception=self.exception,
            kind=self.kind,
            failed_after=read_moment("--failed-after", self.failed_after),
            failed_before=read_moment("--failed-before", self.failed_before),
            older_than=read_span("--older-than", self.older_than),
        )
        # Typer gives an empty list where the option was not given.
        return DeadLetterOptions(**options, ids=self.ids) if self.ids else options

    def given(self) -> dict[str, Any]:
        """Return what was given, for people."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) not in (None, [])}


def read_moment(option: str, text: str | None) -> datetime | None:
    """Return a time that an option gives; one without a zone is in UTC.

    Raises:
        CommandError: It cannot be read.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{option}: must be a time like 2030-01-31T15:00 (in UTC) or 2030-01-31T15:00+02:00, got {text!r}"
        raise CommandError(msg, Exit.USAGE) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def read_span(option: str, text: str | None) -> timedelta | None:
    """Return a span of time that an option gives.

    Raises:
        CommandError: It cannot be read.
    """
    if text is None:
        return None
    found = _AGE.fullmatch(text)
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else _refuse(option, text)
    except OverflowError:
        return _refuse(option, text)


def _refuse(option: str, text: str) -> timedelta:
    msg = f"{option}: must be a number with its unit, such as 90s, 15min, 2h or 7d, got {text!r}"
    raise CommandError(msg, Exit.USAGE)
