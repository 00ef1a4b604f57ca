"""The pages that look."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from faststream_outbox._values.figures import Count, RowState
from faststream_outbox.admin.dead_letters import MAX_ID
from faststream_outbox.admin.page import words
from faststream_outbox.admin.page.changes import counted
from faststream_outbox.admin.page.history import BACKLOG, DEAD, MOST_QUEUES, OLDEST, History, first_queues
from faststream_outbox.admin.page.rendering import ASSETS, Renderer, asset
from faststream_outbox.admin.page.security import Refused
from faststream_outbox.admin.page.selection import NO_KIND, Wanted, read_id
from faststream_outbox.admin.page.subject import Subject
from faststream_outbox.exceptions import ConfigError

MOST_LETTERS = 1000
FIRST_LETTERS = 50
PEEKED_ROWS = 20
PEEKED_BYTES = 200
AUDIT_LINES = 50
TWINS = 20
"""Letters of one id that are shown, where ids began anew."""

LineId = Annotated[int | None, Query(ge=1, le=MAX_ID)]


class Pages:
    """Pages that change nothing, and the files that they need.

    Args:
        subject: The outbox.
        history: Looks at it, and remembers.
        renderer: Fills in templates.
    """

    def __init__(self, subject: Subject, history: History, renderer: Renderer) -> None:
        self._subject = subject
        self._history = history
        self._render = renderer.page

    def add_to(self, router: APIRouter) -> None:
        """Declare the routes."""
        for path, page in (
            ("/", self.home),
            ("/queue", self.queue),
            ("/dead", self.dead),
            ("/letters", self.letters),
            ("/letter", self.letter),
            ("/raw", self.raw),
            ("/audit", self.audit),
            ("/examine", self.examine),
            ("/static/{name}", self.static),
        ):
            router.add_api_route(path, page, methods=["GET"], response_class=Response)

    async def home(self, request: Request, behind: str | None = None) -> Response:
        """Show the outbox at a glance; with ``behind``, queues in the order of their names, after that name."""
        overview = await self._history.overview()
        history = self._history
        if behind is None:
            queues = first_queues(overview.queues)
        else:
            queues = [each for each in overview.queues if each.queue > behind][:MOST_QUEUES]
        return await self._render(
            request,
            "home",
            overview=overview,
            queues=queues,
            last=overview.queues[-1].queue if overview.queues else "",
            behind=behind,
            said=words.of_outbox(overview),
            backlog=history.of_all(BACKLOG),
            oldest=history.of_all(OLDEST),
            dead=history.of_all(DEAD),
            inserted=history.rates("inserted"),
            deleted=history.rates("deleted"),
            plots={
                each.queue: (history.of_queue(each.queue, BACKLOG), history.of_queue(each.queue, OLDEST))
                for each in queues
            },
            forwarders=await self._subject.statuses(),
        )

    async def queue(self, request: Request, name: str, state: RowState | None = None) -> Response:
        """Show a queue and its first rows."""
        overview = await self._history.overview()
        found = [each for each in overview.queues if each.queue == name]
        if not found:
            raise Refused(404, f"the queue {name[:255]!r} has no rows and no dead letters")
        [figures] = found
        counts = {
            RowState.READY: figures.ready,
            RowState.DUE: figures.due,
            RowState.LEASED: figures.leased,
            RowState.RETRY: figures.retries,
            RowState.TIMER: figures.timers,
        }
        chosen = state or next((each for each, count in counts.items() if count.rows), RowState.READY)
        rows = await self._subject.admin.seen(name, state=chosen, limit=PEEKED_ROWS, max_bytes=PEEKED_BYTES)
        return await self._render(
            request,
            "queue",
            figures=figures,
            counts=counts,
            chosen=chosen,
            rows=[(row, words.of_body(row.row.payload)) for row in rows],
            backlog=self._history.of_queue(name, BACKLOG),
            oldest=self._history.of_queue(name, OLDEST),
            dead=self._history.of_queue(name, DEAD),
        )

    async def dead(self, request: Request) -> Response:
        """Show dead letters in groups."""
        wanted = Wanted.of(request.query_params)
        found = await self._subject.admin.dead_letters.groups(**wanted.options())
        groups = [
            (group, Wanted(queue=group.queue, reason=group.reason, kind=group.kind or NO_KIND).query())
            for group in found.groups
        ]
        return await self._render(request, "dead", found=found, groups=groups, wanted=wanted)

    async def letters(self, request: Request, limit: int = FIRST_LETTERS) -> Response:
        """Show dead letters, the oldest first."""
        wanted = Wanted.of(request.query_params)
        limit = min(max(1, limit), MOST_LETTERS)
        dead_letters, options = self._subject.admin.dead_letters, wanted.options()
        found = await dead_letters.list(limit=limit, max_bytes=1, **options)
        count = await counted(dead_letters, options) if len(found) == limit else Count(len(found))
        return await self._render(request, "letters", letters=found, count=count, limit=limit, wanted=wanted)

    async def letter(self, request: Request, id: str) -> Response:  # noqa: A002 - as the address says it
        """Show all of a dead letter."""
        # Where ids began anew, several letters have one.
        found = await self._subject.admin.dead_letters.list(ids=[read_id(id)], limit=TWINS, max_bytes=words.MOST_TEXT)
        if not found:
            raise Refused(404, f"there is no dead letter with the id {id[:20]}: it was replayed or discarded meanwhile")
        return await self._render(
            request, "letter", id=id, letters=[(letter, words.of_body(letter.row.payload)) for letter in found]
        )

    async def raw(self, id: str, number: int = 0) -> Response:  # noqa: A002 - as the address says it
        """Send the whole body of a dead letter as a file, which no browser shows as a page."""
        dead_letters, ids = self._subject.admin.dead_letters, [read_id(id)]
        known = await dead_letters.list(ids=ids, limit=TWINS, max_bytes=1)
        if not 0 <= number < len(known):
            raise Refused(404, "there is no such dead letter")
        # The body of this one alone: those of its twins may be as large.
        found = await dead_letters.list(ids=ids, failed_after=known[number].failed_at, limit=1)
        if not found:
            raise Refused(404, "there is no such dead letter")
        headers = {
            "Content-Disposition": f'attachment; filename="dead-letter-{read_id(id)}.bin"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        return Response(found[0].row.payload, media_type="application/octet-stream", headers=headers)

    async def audit(self, request: Request, before: LineId = None, action: str | None = None) -> Response:
        """Show who has done what."""
        problem, lines = None, None
        try:
            lines = await self._subject.admin.audit(limit=AUDIT_LINES, before=before, action=action or None)
        except ConfigError as error:
            problem = str(error)
        return await self._render(
            request, "audit", lines=lines or (), problem=problem, action=action or "", most=AUDIT_LINES
        )

    async def examine(self, request: Request) -> Response:
        """Look for what keeps messages from flowing."""
        findings = await self._subject.admin.examine()
        return await self._render(request, "examine", findings=findings)

    async def static(self, name: str) -> Response:
        """Send a file that the pages need."""
        if name not in ASSETS:
            raise Refused(404, "there is no such page")
        content = await asyncio.to_thread(asset, name)
        return Response(content, media_type=ASSETS[name], headers={"Cache-Control": "private, max-age=86400"})


def problem_page(renderer: Renderer) -> Any:
    """Return what shows a status and a text as a page."""

    def show(request: Request, status: int, text: str) -> Response:
        return renderer.short_page(request, "problem", status=status, text=text, code=status)

    return show
