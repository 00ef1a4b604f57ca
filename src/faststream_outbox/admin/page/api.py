"""The REST API: the admin API as JSON."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from faststream_outbox._values.figures import RowState
from faststream_outbox.admin.dead_letters import MAX_ID
from faststream_outbox.admin.json_form import to_json
from faststream_outbox.admin.page import models
from faststream_outbox.admin.page.changes import Change, change, counted
from faststream_outbox.admin.page.history import History
from faststream_outbox.admin.page.models import MOST_BYTES
from faststream_outbox.admin.page.security import Refused, require_actor
from faststream_outbox.admin.page.subject import Subject
from faststream_outbox.admin.pausing import ScopeOptions

TWINS = 20

Limit = Annotated[int, Query(ge=1, le=1000)]
Text = Annotated[str | None, Query()]
Bytes = Annotated[int, Query(ge=1, le=MOST_BYTES, description="How much of each body to read.")]

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": models.Problem, "description": "An argument cannot be."},
    403: {"model": models.Problem, "description": "This person may only look, or the request is another site's."},
    422: {"model": models.Problem, "description": "An argument is missing, unknown, or of another type."},
    503: {"model": models.Problem, "description": "The database cannot be reached, or refuses."},
}
NO_LETTER: dict[int | str, dict[str, Any]] = {404: {"model": models.Problem, "description": "No such dead letter."}}


class Api:
    """The routes below ``api/``.

    Args:
        subject: The outbox.
        history: Is told of changes.
    """

    def __init__(self, subject: Subject, history: History) -> None:
        self._subject = subject
        self._history = history

    def add_to(self, router: APIRouter) -> None:
        """Declare the routes."""

        def route(method: str, path: str, work: Any, model: Any, **more: Any) -> None:
            router.add_api_route(path, work, methods=[method], response_model=model, **more)

        route("GET", "/overview", self.overview, models.OverviewAnswer)
        route("GET", "/queues", self.queues, list[models.QueueAnswer])
        route("GET", "/rows", self.rows, list[models.SeenAnswer])
        route("GET", "/forwarders", self.forwarders, list[models.ForwarderAnswer])
        route("GET", "/findings", self.findings, list[models.FindingAnswer])
        route("GET", "/pauses", self.pauses, list[models.PauseAnswer])
        route("POST", "/pauses", self.pause, models.PauseAnswer)
        route("POST", "/pauses/resume", self.resume, models.ResumeAnswer)
        route("GET", "/audit", self.audit, list[models.AuditAnswer])
        route("GET", "/dead-letters", self.letters, list[models.LetterAnswer])
        route("GET", "/dead-letters/groups", self.groups, models.GroupsAnswer)
        route("GET", "/dead-letters/{letter_id}", self.letter, list[models.LetterAnswer], responses=NO_LETTER)
        route("POST", "/dead-letters/replay", self.replay, models.ChangeAnswer)
        route("POST", "/dead-letters/discard", self.discard, models.ChangeAnswer)

    async def overview(self) -> Any:
        """Return the outbox at a glance: its state in one word, server, tables, queues and pauses."""
        return to_json(await self._history.overview())

    async def queues(
        self, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000, behind: Annotated[str, Query()] = ""
    ) -> Any:
        """Return the queues that have rows or dead letters, in the order of their names."""
        return to_json(await self._subject.admin.queues(limit=limit, behind=behind))

    async def rows(
        self,
        queue: Annotated[str, Query()],
        state: Annotated[RowState, Query()] = RowState.READY,
        limit: Limit = 20,
        max_bytes: Bytes = 4096,
    ) -> Any:
        """Return the first rows of a queue that are in a state. Takes no lock."""
        _check_size(limit, max_bytes)
        return to_json(await self._subject.admin.seen(queue, state=state, limit=limit, max_bytes=max_bytes))

    async def forwarders(self) -> Any:
        """Return the forwarders of the process that answers."""
        queues = {each.name: list(each.queues) for each in self._subject.forwarders}
        figures = {*models.ForwarderAnswer.model_fields} - {"name", "queues"}
        return [
            {"name": name, "queues": queues[name], "state": "unknown"}
            | ({} if status is None else {figure: getattr(status, figure) for figure in figures})
            for name, status in await self._subject.statuses()
        ]

    async def findings(self) -> Any:
        """Look for what keeps messages from flowing, as the command doctor does. It may take half a minute."""
        return to_json(await self._subject.admin.examine())

    async def pauses(self) -> Any:
        """Return what is paused for all processes."""
        return to_json(await self._subject.admin.pauses())

    async def pause(self, asked: models.PauseAsked, request: Request) -> Any:
        """Pause a forwarder, a queue or a key for all processes."""
        if asked.until is not None and asked.seconds is not None:
            raise Refused(400, "until, seconds: give one of them")
        until = asked.until if asked.seconds is None else timedelta(seconds=asked.seconds)
        who = require_actor(request)
        done = await self._subject.admin.pause(until=until, by=who, why=asked.why, **_scope(asked))
        self._history.forget()
        return to_json(done)

    async def resume(self, asked: models.ScopeAsked, request: Request) -> Any:
        """End a pause of just this."""
        was_paused = await self._subject.admin.resume(by=require_actor(request), why=asked.why, **_scope(asked))
        self._history.forget()
        return {"was_paused": was_paused}

    async def audit(
        self,
        limit: Limit = 100,
        before: Annotated[int | None, Query(ge=1, le=MAX_ID, description="Lines before the one of this id.")] = None,
        action: Annotated[str | None, Query(description="pause, resume, replay or discard.")] = None,
    ) -> Any:
        """Return who paused, resumed, replayed and discarded what, the last first."""
        lines = await self._subject.admin.audit(limit=limit, before=before, action=action)
        return [to_json(line) | {"what": _exact(line.what)} for line in lines]

    async def letters(self, asked: Annotated[models.LettersLooked, Query()]) -> Any:
        """Return dead letters, the oldest first, those that agree with all that is given."""
        _check_size(asked.limit, asked.max_bytes)
        return to_json(
            await self._subject.admin.dead_letters.list(limit=asked.limit, max_bytes=asked.max_bytes, **asked.options())
        )

    async def groups(self, queue: Text = None, reason: Text = None, limit: Limit = 100) -> Any:
        """Return dead letters by queue, reason and type of exception, the largest groups first."""
        return to_json(await self._subject.admin.dead_letters.groups(limit=limit, queue=queue, reason=reason))

    async def letter(self, letter_id: Annotated[int, Path()], max_bytes: Bytes = 2**20) -> Any:
        """Return the dead letter of an id; several, where ids began anew."""
        found = await self._subject.admin.dead_letters.list(
            ids=[letter_id], limit=max(1, min(TWINS, MOST_BYTES // max_bytes)), max_bytes=max_bytes
        )
        if not found:
            raise Refused(404, f"there is no dead letter with the id {letter_id}")
        return to_json(found)

    async def replay(self, asked: models.ChangeAsked, request: Request) -> Any:
        """Replay dead letters; without dry_run=false, only say how many."""
        return await self._change("replay", asked, request)

    async def discard(self, asked: models.ChangeAsked, request: Request) -> Any:
        """Delete dead letters for good; without dry_run=false, only say how many."""
        return await self._change("discard", asked, request)

    async def _change(self, action: str, asked: models.ChangeAsked, request: Request) -> Any:
        who = require_actor(request)
        options = asked.options()
        if not options and not asked.all:
            raise Refused(400, f"{action} which dead letters? Say so (queue, ids, reason ...), or all")
        dead_letters = self._subject.admin.dead_letters
        selected = await counted(dead_letters, options)
        done = Change(0, selected)
        if not asked.dry_run:
            try:
                done = await change(dead_letters, action, options, by=who, why=asked.why, most=asked.limit)
            finally:
                self._history.forget()
        return {
            "action": action,
            "dry_run": asked.dry_run,
            "selected": selected.rows,
            "done": done.done,
            "left": None if done.left is None else done.left.rows,
        }


def _check_size(limit: int, max_bytes: int) -> None:
    if limit * max_bytes > MOST_BYTES:
        raise Refused(400, f"limit, max_bytes: together they may be {MOST_BYTES} bytes")


def _scope(asked: models.ScopeAsked) -> ScopeOptions:
    return ScopeOptions(forwarder=asked.forwarder, queue=asked.queue, key=asked.key)


def _exact(what: Mapping[str, Any]) -> Any:
    """Return what a line is about, with ids as texts."""
    return {name: list(map(str, value)) if isinstance(value, list | tuple) else value for name, value in what.items()}
