"""The pages with forms: pause and resume, replay and discard."""

from dataclasses import replace
from datetime import timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from faststream_outbox.admin.page.changes import MOST, change
from faststream_outbox.admin.page.history import History
from faststream_outbox.admin.page.rendering import Renderer
from faststream_outbox.admin.page.security import FIELD, Refused, check_token, leave_notice, require_actor
from faststream_outbox.admin.page.selection import Wanted, read_form
from faststream_outbox.admin.page.subject import Subject
from faststream_outbox.admin.pausing import ScopeOptions
from faststream_outbox.exceptions import ConfigError

ACTIONS = ("replay", "discard")
SPANS = {"15 minutes": 900, "1 hour": 3600, "4 hours": 14_400, "1 day": 86_400, "until resumed": 0}
"""For how long a pause may be, in seconds; 0: until it is resumed."""

SEE_OTHER = 303


class Actions:
    """Pages that change something, after a confirmation.

    Args:
        subject: The outbox.
        history: Is told of changes.
        renderer: Fills in templates.
    """

    def __init__(self, subject: Subject, history: History, renderer: Renderer) -> None:
        self._subject = subject
        self._history = history
        self._render = renderer.page

    def add_to(self, router: APIRouter) -> None:
        """Declare the routes."""
        for method, path, page in (
            ("GET", "/pauses", self.pauses),
            ("POST", "/pauses", self.pause),
            ("POST", "/resume", self.resume),
            ("GET", "/change", self.confirm),
            ("POST", "/change", self.change),
        ):
            router.add_api_route(path, page, methods=[method], response_class=Response)

    async def pauses(self, request: Request) -> Response:
        """Show what is paused for all processes."""
        problem, found = None, None
        try:
            found = await self._subject.admin.pauses()
        except ConfigError as error:
            problem = str(error)
        return await self._render(request, "pauses", pauses=found or (), problem=problem, spans=SPANS)

    async def pause(self, request: Request) -> Response:
        """Pause what a form names."""
        who, form = await _read(request)
        seconds = {str(each): each for each in SPANS.values()}.get(form.get("seconds", "0"))
        if seconds is None:
            raise Refused(400, f"seconds: must be one of {', '.join(map(str, SPANS.values()))}")
        until = timedelta(seconds=seconds) if seconds else None
        await self._subject.admin.pause(until=until, by=who, why=form.get("why") or None, **_scope(form))
        return self._done(request, "pauses", "paused")

    async def resume(self, request: Request) -> Response:
        """End the pause that a form names."""
        who, form = await _read(request)
        was_paused = await self._subject.admin.resume(by=who, why=form.get("why") or None, **_scope(form))
        return self._done(request, "pauses", "resumed" if was_paused else "was-not-paused")

    async def confirm(self, request: Request, action: str) -> Response:
        """Show what would be changed, and ask."""
        require_actor(request)
        _check(action)
        wanted = Wanted.of(request.query_params)
        dead_letters = self._subject.admin.dead_letters
        # One that fails meanwhile is not confirmed.
        now = await dead_letters.now()
        until = min(now, wanted.options().get("failed_before") or now)
        confirmed = replace(wanted, failed_before=until.isoformat())
        found = await dead_letters.groups(**confirmed.options())
        which = confirmed.query()
        return await self._render(
            request, "confirm", action=action, found=found, count=found.looked_at, which=which, wanted=wanted, most=MOST
        )

    async def change(self, request: Request) -> Response:
        """Replay or discard what a form names."""
        who, form = await _read(request)
        action = form.get("action", "")
        _check(action)
        wanted = Wanted.of(form)
        options = wanted.options()
        try:
            done = await change(self._subject.admin.dead_letters, action, options, by=who, why=form.get("why"))
        finally:
            self._history.forget()
        return self._done(request, "dead", action, done.done, "unknown" if done.left is None else done.left.rows)

    def _done(self, request: Request, where: str, *words: object) -> Response:
        self._history.forget()
        # Relative, so that it is right behind every proxy.
        response = RedirectResponse(where, SEE_OTHER)
        leave_notice(request, response, *words)
        return response


async def _read(request: Request) -> tuple[str, dict[str, str]]:
    form = await read_form(request)
    check_token(request, form.get(FIELD, ""))
    return require_actor(request), form


def _check(action: str) -> None:
    if action not in ACTIONS:
        raise Refused(400, f"action: must be one of {', '.join(ACTIONS)}")


def _scope(form: dict[str, str]) -> ScopeOptions:
    return ScopeOptions(
        forwarder=form.get("forwarder") or None, queue=form.get("queue") or None, key=form.get("key") or None
    )
