"""The router that has the page and the REST API."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response, params
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.exc import DBAPIError

from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.admin.page.actions import Actions
from faststream_outbox.admin.page.api import ERRORS, Api
from faststream_outbox.admin.page.history import History
from faststream_outbox.admin.page.pages import Pages, problem_page
from faststream_outbox.admin.page.rendering import Renderer
from faststream_outbox.admin.page.security import make_route_class
from faststream_outbox.admin.page.subject import Administered, Subject
from faststream_outbox.exceptions import ConfigError

NO_GUARD = (
    "make_admin_router: give dependencies=[Depends(...)] that refuse those who may not see the outbox: its pages show "
    "bodies and headers of messages. Or say unguarded=True, if all who reach the address may"
)


def make_admin_router(
    broker: Administered | OutboxAdmin,
    *,
    dependencies: Sequence[params.Depends] = (),
    actor: Callable[..., Any] | None = None,
    prefix: str = "/outbox",
    title: str = "outbox",
    unguarded: bool = False,
) -> APIRouter:
    """Return a router with a page at ``prefix``, and a REST API below ``prefix/api``, for people who run an outbox.

    The page shows queues, forwarders of this process, dead letters, pauses and the audit log, and examines what stands.
    Changes (pause, resume, replay, discard) need a person who acts, under whose name they stand in the audit log. So
    without ``actor`` everything is read-only. Forms that another site sends are refused.

    Args:
        broker: Such as ``router.broker`` of an ``OutboxRouter``; or what ``make_admin`` returns, without a broker.
        dependencies: FastAPI's ``Depends(...)``, which raise for those who may not look.
        actor: A dependency that returns the name of the person who asks, or None for one who may only look.
        prefix: Where the page is; it begins with a slash, and does not end with one.
        title: Which outbox this is, for people who run several.
        unguarded: True permits that there are no ``dependencies``.

    Raises:
        ConfigError: There is no guard, or an argument cannot be.

    Example::

        def operator(user: User = Depends(current_user)) -> str | None:
            return user.email if "operator" in user.roles else None

        app.include_router(make_admin_router(router.broker, dependencies=[Depends(current_user)], actor=operator))
    """
    _check(dependencies, prefix, unguarded=unguarded)
    subject = Subject(broker)

    def explain(error: BaseException) -> str:
        said = subject.admin.explain(error)
        # SQLAlchemy's words have the statement and its parameters; the driver's do not.
        return said.text if said.is_whole or not isinstance(error, DBAPIError) else str(error.orig).partition("\n")[0]

    history = History(lambda: subject.admin)
    renderer = Renderer(title)
    named = [*dependencies, Depends(_noted(actor))]
    pages = APIRouter(include_in_schema=False, route_class=make_route_class(explain, problem_page(renderer)))
    Pages(subject, history, renderer).add_to(pages)
    Actions(subject, history, renderer).add_to(pages)
    api = APIRouter(prefix="/api", tags=[title], route_class=make_route_class(explain, _as_json), responses=ERRORS)
    Api(subject, history).add_to(api)
    router = APIRouter(prefix=prefix, dependencies=named, lifespan=history.looking)
    router.include_router(pages)
    router.include_router(api)
    if prefix:
        # Links on the page are relative, so the page itself needs the slash at its end.
        router.add_api_route("", _to_page(prefix), methods=["GET"], include_in_schema=False)
    return router


def _check(dependencies: Sequence[params.Depends], prefix: str, *, unguarded: bool) -> None:
    for dependency in dependencies:
        if not isinstance(dependency, params.Depends):
            msg = f"dependencies: must be FastAPI's Depends(...), got {dependency!r}"
            raise ConfigError(msg)
    if not dependencies and unguarded is not True:
        raise ConfigError(NO_GUARD)
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        msg = f"prefix: must begin with a slash and not end with one, got {prefix!r}"
        raise ConfigError(msg)


def _noted(actor: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a dependency that notes who asks."""
    if actor is None:

        async def nobody(request: Request) -> None:
            request.state.outbox_actor = None

        return nobody

    async def note(request: Request, who: Any = Depends(actor)) -> None:
        if who is not None and not (isinstance(who, str) and who):
            # A mistake of the application, and not of the person who asks.
            msg = f"actor: must return a name, or None for one who may only look, got {type(who).__name__}"
            raise TypeError(msg)
        request.state.outbox_actor = who

    return note


def _to_page(prefix: str) -> Callable[..., Any]:
    async def to_page() -> Response:
        return RedirectResponse(f"{prefix.rpartition('/')[2]}/", 307)

    return to_page


def _as_json(_request: Request, status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
