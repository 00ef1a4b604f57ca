"""Who may ask for what: forms of other sites are refused, answers say nothing to other sites, errors are in words."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError

from faststream_outbox.exceptions import ConfigError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "outbox_form"
NOTICE = "outbox_notice"
FIELD = "form"

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Without it, browsers would name no origin with a form of our own.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

LOOK_SECONDS = 10.0
SLOW_SECONDS = 90.0
"""For an examination, which waits for each of its checks, and for a batch of changes."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Show = Callable[[Request, int, str], Response]
Endpoint = Callable[..., Any]


class Refused(Exception):  # noqa: N818 - what it means for the person
    """Ends a request with a status and a text for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def make_route_class(explain: Callable[[BaseException], str], show: Show) -> type[APIRoute]:
    """Return a class of routes that refuse what other sites send, and put errors into words.

    Errors of the application's own dependencies are the application's matter: they are left as they are.

    Args:
        explain: Puts an error of the database into words.
        show: Makes the answer of a status and a text.
    """

    class Route(APIRoute):
        def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
            is_slow = "POST" in (options.get("methods") or ()) or path.endswith(("/examine", "/findings"))
            seconds = SLOW_SECONDS if is_slow else LOOK_SECONDS
            super().__init__(path, _in_time(endpoint, explain, seconds), **options)

        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                response = await _answer(handle, request, show)
                for name, value in HEADERS.items():
                    response.headers.setdefault(name, value)
                return response

            return guarded

    return Route


def _in_time(endpoint: Endpoint, explain: Callable[[BaseException], str], seconds: float) -> Endpoint:
    """Return an endpoint that ends within a time, and whose errors are ``Refused`` where they have words for people."""
    if hasattr(endpoint, "is_in_time"):
        # A router that includes another makes its routes anew.
        return endpoint

    @wraps(endpoint)
    async def work(*arguments: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await endpoint(*arguments, **options)
        except Exception as error:
            said = _in_words(error, explain)
            if said is None:
                raise
            raise Refused(*said) from error

    work.is_in_time = True  # type: ignore[attr-defined]
    return work


async def _answer(handle: Handler, request: Request, show: Show) -> Response:
    try:
        refuse_other_sites(request)
        refuse_zero_bytes(request.url.query)
        return await handle(request)
    except Refused as refused:
        return show(request, refused.status, refused.text)
    except RequestValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
        return show(request, 422, "; ".join(wrong))


def _in_words(error: Exception, explain: Callable[[BaseException], str]) -> tuple[int, str] | None:
    """Return the status and the text that a person gets; None for what is a fault of the page."""
    match error:
        case Refused():
            return error.status, error.text
        case ConfigError():
            return 400, str(error)
        case TimeoutError():
            return 503, "the database did not answer in time; Examine says whether a lock blocks it"
        case SQLAlchemyError() | OSError():
            return 503, explain(error)
    # asyncpg's own, while a connection is opened.
    return (503, explain(error)) if type(error).__module__.partition(".")[0] == "asyncpg" else None


def refuse_other_sites(request: Request) -> None:
    """Raise unless a request that changes something comes from a page of this site, or from a program.

    Browsers say with ``Sec-Fetch-Site`` where a request comes from, and those of old, or without TLS, with ``Origin``.
    A program sends neither, and has no cookies of others that it could be made to use.

    Raises:
        Refused: It comes from a page of another site.
    """
    if request.method in SAFE_METHODS:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_own = site in {"same-origin", "none"}
    else:
        is_own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_own:
        text = "this request comes from a page of another site, or a proxy has changed its Host; nothing was done"
        raise Refused(403, text)


def refuse_zero_bytes(text: str) -> None:
    """Raise for what PostgreSQL cannot have in a text: a query as it is sent, or what a form has.

    Raises:
        Refused: There is a zero byte.
    """
    if "%00" in text or "\x00" in text:
        raise Refused(400, "PostgreSQL has no texts with zero bytes")


def form_token(request: Request) -> str:
    """Return what a form of this browser carries along, and its cookie says too."""
    known = request.cookies.get(COOKIE, "")
    return known if len(known) > 20 else secrets.token_urlsafe(24)  # noqa: PLR2004 - shorter ones can be guessed


def keep_token(request: Request, response: Response, token: str) -> None:
    """Have the browser keep what its forms carry along."""
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https")


def leave_notice(request: Request, response: Response, *words: object) -> None:
    """Have the next page say once what was done. An address that says it could be anybody's."""
    response.set_cookie(
        NOTICE,
        ":".join(map(str, words)),
        max_age=60,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def take_notice(request: Request, response: Response) -> None:
    """Have the browser forget a notice that was shown."""
    if NOTICE in request.cookies:
        response.delete_cookie(NOTICE)


def check_token(request: Request, token: str) -> None:
    """Raise unless a form is one that this browser was given.

    Raises:
        Refused: It is not.
    """
    known = request.cookies.get(COOKIE, "")
    if not known or not secrets.compare_digest(known.encode(), token.encode()):
        raise Refused(403, "this form is not one that your browser was given here; go back, reload the page, try again")


def actor_of(request: Request) -> str | None:
    """Return who acts, for the audit log; None for those who may only look."""
    who: str | None = getattr(request.state, "outbox_actor", None)
    return who


def require_actor(request: Request) -> str:
    """Return who acts.

    Raises:
        Refused: This person may only look.
    """
    who = actor_of(request)
    if who is None:
        raise Refused(403, "you may look, and change nothing")
    return who
