"""What the REST API answers and takes, for OpenAPI."""

from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from faststream_outbox.admin.dead_letters import DeadLetterOptions

MOST_BYTES = 64 * 2**20
"""Of bodies in one answer."""


def _has_no_zero(text: str) -> str:
    if "\x00" in text:
        msg = "PostgreSQL has no texts with zero bytes"
        raise ValueError(msg)
    return text


Text = Annotated[str, AfterValidator(_has_no_zero)]

Id = Annotated[
    int,
    PlainSerializer(str, return_type=str),
    Field(
        description="A number of up to 63 bits as a text, since JavaScript reads longer numbers wrongly than 53 bits."
    ),
]


class Answer(BaseModel):
    """What is answered. A field that is not described is a fault."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """Why nothing was done."""

    error: str


class CountAnswer(Answer):
    """How many there are, or that there are at least so many."""

    rows: int
    is_whole: bool = Field(description="False: there may be more.")


class ScopeAnswer(Answer):
    """What a pause is of: a forwarder, a queue, a key of a queue, or a key in every queue."""

    forwarder: str | None = None
    queue: str | None = None
    key: str | None = None


class PauseAnswer(Answer):
    """A pause that is in force for all processes."""

    scope: ScopeAnswer
    who: str
    why: str | None
    since: datetime
    until: datetime | None
    seconds_left: float | None


class QueueAnswer(Answer):
    """A queue that has rows or dead letters."""

    queue: str
    forwarder: str | None = Field(description="Whose copies these are (tee=True).")
    backlog: CountAnswer = Field(description="Ready and due rows.")
    ready: CountAnswer
    due: CountAnswer
    timers: CountAnswer
    retries: CountAnswer
    leased: CountAnswer
    leases_run_out: int
    dead: CountAnswer = Field(description="Parked and moved dead letters.")
    parked: CountAnswer
    moved: CountAnswer
    held: int = Field(description="Dead letters that hold back the later rows of their key.")
    oldest_seconds: float | None = Field(description="For how long the oldest takeable row could have been taken.")
    next_due_seconds: float | None
    pauses: list[PauseAnswer]


class ServerAnswer(Answer):
    """The server, the database, and the role of the page."""

    version: str
    database: str
    role: str
    takes_writes: bool
    is_standby: bool
    is_pooled: bool
    connections: int
    most_connections: int
    role_connections: int
    role_limit: int | None
    database_connections: int
    database_limit: int | None
    statement_timeout_ms: int


class TableAnswer(Answer):
    """A table, as the server's statistics have it."""

    table: str
    estimated_rows: int
    dead_rows: int
    table_bytes: int
    index_bytes: int
    last_vacuum: datetime | None
    last_analyze: datetime | None
    options: list[str]
    has_row_security: bool
    triggers: list[str]
    rows_inserted: int
    rows_deleted: int


class OverviewAnswer(Answer):
    """The outbox at a glance."""

    state: str = Field(description="flowing, standing, paused or broken.")
    server: ServerAnswer
    tables: list[TableAnswer]
    differences: dict[str, list[str]]
    queues: list[QueueAnswer]
    pauses: list[PauseAnswer]


class RowAnswer(Answer):
    """A row of the table."""

    id: Id
    queue: str
    key: str | None
    idempotency_key: str
    payload: str | dict[str, str] = Field(description="A text where it is UTF-8, else an object with base64.")
    headers: dict[str, str]
    attempts_count: int
    deliveries_count: int
    created_at: datetime
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None
    acquired_at: datetime | None
    timer_id: str | None


class SeenAnswer(Answer):
    """A row as it was seen."""

    row: RowAnswer
    state: str
    size: int = Field(description="Bytes of the whole body.")
    next_attempt_at: datetime | None
    exception: str | None


class LetterAnswer(Answer):
    """A dead letter."""

    row: RowAnswer
    failed_at: datetime
    reason: str
    exception: str | None
    holds_key: bool
    size: int | None = Field(description="Bytes of the whole body.")


class GroupAnswer(Answer):
    """Dead letters of one queue, one reason and one type of exception."""

    queue: str
    reason: str
    kind: str | None
    count: int
    held: int
    first_failed_at: datetime
    last_failed_at: datetime
    example: str | None


class GroupsAnswer(Answer):
    """Groups of dead letters, the largest first."""

    groups: list[GroupAnswer]
    looked_at: CountAnswer


class AuditAnswer(Answer):
    """What somebody has done."""

    id: Id
    at: datetime
    who: str
    action: str
    what: dict[str, Any]
    why: str | None
    affected: int
    until: datetime | None
    ended_at: datetime | None


class FindingAnswer(Answer):
    """One thing that was looked at."""

    check: str
    grade: str
    text: str
    advice: str | None


class ForwarderAnswer(Answer):
    """A forwarder of the process that answers; its counts are of this process."""

    name: str
    state: str = Field(description="As of status(); unknown, with no figures, where it could not be asked in time.")
    queues: list[str]
    lag_rows: int | None = None
    lag_seconds: float | None = None
    sent: int | None = None
    refused: int | None = None
    dead: int | None = None
    last_error: str | None = None


class ScopeAsked(BaseModel):
    """What is paused or resumed: a forwarder, a queue, a key of a queue, or a key in every queue."""

    model_config = ConfigDict(extra="forbid")

    forwarder: Text | None = None
    queue: Text | None = None
    key: Text | None = None
    why: Text | None = Field(None, description="For the audit log.")


class PauseAsked(ScopeAsked):
    """A pause."""

    until: AwareDatetime | None = None
    seconds: float | None = Field(None, gt=0, le=366 * 86_400, description="Until it ends by itself.")


class ResumeAnswer(Answer):
    """Whether there was such a pause."""

    was_paused: bool


class LettersAsked(BaseModel):
    """Which dead letters are meant: those that agree with all that is given."""

    model_config = ConfigDict(extra="forbid")

    queue: Text | None = None
    key: Text | None = None
    reason: Text | None = None
    kind: Text | None = Field(None, description="Just this type of exception, as groups have it; empty: none.")
    exception: Text | None = Field(None, description="A part of the exception's text.")
    failed_after: AwareDatetime | None = None
    failed_before: AwareDatetime | None = None

    def options(self) -> DeadLetterOptions:
        """Return the options of ``DeadLetters``' methods."""
        given: Any = {name: getattr(self, name) for name in DeadLetterOptions.__optional_keys__ if hasattr(self, name)}
        return cast("DeadLetterOptions", {name: value for name, value in given.items() if value is not None})


class LettersLooked(LettersAsked):
    """Which dead letters are shown, and how much of them."""

    limit: int = Field(100, ge=1, le=1000)
    max_bytes: int = Field(4096, ge=1, le=MOST_BYTES, description="How much of each body to read.")


class ChangeAsked(LettersAsked):
    """Which dead letters are changed."""

    ids: list[int] | None = Field(None, description="Numbers, or texts of digits.")
    all: bool = Field(default=False, description="All, where nothing else says which.")
    dry_run: bool = Field(default=True, description="Only say what would be done.")
    limit: int = Field(10_000, ge=1, le=10_000, description="The most to change; ask again while some are left.")
    why: Text | None = Field(None, description="For the audit log.")


class ChangeAnswer(Answer):
    """What was done."""

    action: str
    dry_run: bool
    selected: int = Field(description="Up to 100,000 are counted.")
    done: int
    left: int | None = Field(description="Null: the database did not answer any more.")
