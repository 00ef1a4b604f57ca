"""Which dead letters a request is about, as a query of an address and the fields of a form say it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Request

from faststream_outbox.admin.dead_letters import DeadLetterOptions
from faststream_outbox.admin.page.security import Refused, refuse_zero_bytes

MOST_FORM_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Texts of a query or a form; None where a field was left out or empty."""

    queue: str | None = None
    key: str | None = None
    reason: str | None = None
    kind: str | None = None
    """``-`` is for letters without an exception, since an empty field means all."""
    exception: str | None = None
    failed_after: str | None = None
    failed_before: str | None = None
    id: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Wanted":
        """Return what fields say."""
        return cls(**{field.name: given.get(field.name) or None for field in fields(cls)})

    def given(self) -> dict[str, str]:
        """Return what was given."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def query(self) -> str:
        """Return what was given, for an address."""
        return urlencode(self.given())

    def options(self) -> DeadLetterOptions:
        """Return the options of ``DeadLetters``' methods.

        Raises:
            Refused: A time or an id cannot be read.
        """
        options = DeadLetterOptions(
            queue=self.queue,
            key=self.key,
            reason=self.reason,
            kind="" if self.kind == NO_KIND else self.kind,
            exception=self.exception,
            failed_after=_moment("failed after", self.failed_after),
            failed_before=_moment("failed before", self.failed_before),
        )
        return options if self.id is None else DeadLetterOptions(**options, ids=[read_id(self.id)])


NO_KIND = "-"


def read_id(text: str) -> int:
    """Return the id of a dead letter.

    Raises:
        Refused: It is no number.
    """
    try:
        return int(text)
    except ValueError:
        raise Refused(400, f"id: must be a number, got {text[:40]!r}") from None


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(400, f"{name}: must be a time like 2030-01-31T15:00 (in UTC), got {text[:40]!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def read_form(request: Request) -> dict[str, Any]:
    """Return the fields of a form.

    Raises:
        Refused: It is no form, or too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "this address takes a form; programs use the addresses below api/")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_FORM_BYTES:
            raise Refused(413, "the form is too long")
    form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
    # In one field, since browsers change line breaks in what a form carries along.
    form |= dict(parse_qsl(form.pop("which", "")))
    refuse_zero_bytes("".join(form.values()).replace("%00", ""))
    return form
