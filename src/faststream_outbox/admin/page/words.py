"""The states of an outbox, its queues and its forwarders, in the words of those who run it."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from faststream_outbox._values.control import StoredPause
from faststream_outbox._values.figures import QueueFigures
from faststream_outbox._values.overview import OutboxState, Overview, is_standing
from faststream_outbox._values.printable import printable
from faststream_outbox._values.spans import size, span


class Said(NamedTuple):
    """A state in words."""

    tone: str
    """``good``, ``calm``, ``warn`` or ``bad``, for its colour."""
    word: str
    text: str
    """What that means here; may be empty."""


def of_outbox(overview: Overview) -> Said:
    """Return how the outbox does."""
    standing = [each for each in overview.queues if is_standing(each)]
    match overview.state:
        case OutboxState.BROKEN if not overview.server.takes_writes:
            kind = "it is a standby" if overview.server.is_standby else "its sessions read only"
            return Said("bad", "Broken", f"The database takes no writes: {kind}.")
        case OutboxState.BROKEN:
            return Said(
                "bad", "Broken", "The tables are not what this release declares. Examine names each difference."
            )
        case OutboxState.STANDING:
            names = ", ".join(printable(each.queue) for each in standing[:3])
            more = f" and {len(standing) - 3} more" if len(standing) > 3 else ""  # noqa: PLR2004 - as above
            return Said("warn", "Standing", f"Rows could have been taken long ago: {names}{more}. Examine says why.")
        case OutboxState.PAUSED:
            count = len(overview.pauses)
            return Said("calm", "Paused", f"{count} pause{'' if count == 1 else 's'} in force; everything else flows.")
        case _:
            return Said("good", "Flowing", "No row waits for long.")


def of_queue(figures: QueueFigures) -> Said:
    """Return how a queue does."""
    whole = [pause for pause in figures.pauses if pause.scope.key is None]
    if figures.leases_run_out:
        return Said(
            "warn", "Standing", f"the leases of {figures.leases_run_out:,} rows ran out: no process gives them back"
        )
    if whole:
        return Said("calm", "Paused", of_pause(whole[0]))
    if is_standing(figures):
        return Said("warn", "Standing", f"a row waits for {span(figures.oldest_seconds)}")
    for count, word, text in (
        (figures.leased, "Working", "handlers have rows"),
        (figures.backlog, "Flowing", "rows are on their way"),
        (figures.retries, "Retrying", f"the next attempt is in {span(figures.next_due_seconds)}"),
        (figures.timers, "Timers", f"the next one is due in {span(figures.next_due_seconds)}"),
    ):
        if count.rows:
            return Said("good", word, text)
    return Said("calm", "Empty", "nothing waits")


def of_pause(pause: StoredPause) -> str:
    """Return who has paused, until when and why."""
    until = "until it is resumed" if pause.until is None else f"until {clock(pause.until)} UTC"
    why = "" if pause.why is None else f": {printable(pause.why)}"
    return f"by {printable(pause.who)}, {until}{why}"


_FORWARDERS = {
    "stopped": Said("calm", "Stopped", "the broker of this process does not run"),
    "paused": Said("calm", "Paused", ""),
    "connecting": Said("warn", "Connecting", "the destination was not reached yet"),
    "flowing": Said("good", "Flowing", "the destination takes rows"),
    "down": Said("bad", "Down", "the destination is down; rows wait and nothing is counted"),
    "probing": Said("warn", "Probing", "the destination was down, and one lane tries it"),
}


def of_forwarder(status: Any) -> Said:
    """Return how a forwarder of this process does."""
    if status is None:
        return Said("warn", "Unknown", "its state could not be asked for in time")
    said = _FORWARDERS[str(status.state)]
    if status.pauses and said.word == "Paused":
        return said._replace(text=of_pause(status.pauses[0]))
    if status.parts_down:
        return Said("warn", "Flowing in part", f"{len(status.parts_down)} parts of the destination are down")
    return said


def moment(value: datetime | None) -> str:
    """Return a time as people read it, in UTC."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def clock(value: datetime) -> str:
    """Return a time without its seconds, in UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"


def lines(text: str) -> str:
    """Return a text of several lines with what is not seen written as escapes, line by line."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))


def short(text: str | None, length: int = 100) -> str:
    """Return the first line of a text, cut off at a length."""
    line = printable((text or "-").partition("\n")[0])
    return line if len(line) <= length else f"{line[: length - 1]}…"


class Body(NamedTuple):
    """A body as it is shown."""

    text: str
    is_hex: bool
    shown: int
    """Bytes of it that are shown."""


MOST_TEXT = 16_384
MOST_HEX = 2_048


def of_body(payload: bytes) -> Body:
    """Return a body as text where it is UTF-8, and else as bytes in hexadecimal."""
    part = payload[:MOST_TEXT]
    for cut in range(4):
        try:
            text = part[: len(part) - cut].decode()
        except UnicodeDecodeError:
            if len(part) < MOST_TEXT:
                break
        else:
            if "\x00" not in text:
                return Body(lines(text), is_hex=False, shown=len(part) - cut)
            break
    return Body(_hex(part[:MOST_HEX]), is_hex=True, shown=len(part[:MOST_HEX]))


def _hex(part: bytes) -> str:
    def line(start: int) -> str:
        some = part[start : start + 16]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)  # noqa: PLR2004 - what ASCII shows
        return f"{start:08x}  {some.hex(' '):<47}  {seen}"

    return "\n".join(line(start) for start in range(0, len(part), 16))


def of_what(what: Any) -> str:
    """Return what a line of the audit log is about."""
    return ", ".join(f"{name} {printable(str(value))}" for name, value in what.items()) or "all"


FILTERS = {
    "moment": moment,
    "clock": clock,
    "printable": printable,
    "short": short,
    "span": span,
    "size": size,
    "of_pause": of_pause,
    "of_what": of_what,
    "lines": lines,
}
