"""The command that serves the page and the REST API: ``page``."""

import re
import secrets
from base64 import b64decode
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.admin.pausing import me
from faststream_outbox.cli.exits import CommandError, Exit
from faststream_outbox.cli.output import console
from faststream_outbox.cli.site import Site

NEEDED = ("fastapi", "jinja2", "uvicorn")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
SHORTEST_TOKEN = 16
TOKEN_BYTES = 18


async def page(
    site: Site,
    *,
    host: Annotated[str, typer.Option(help="Where to listen; without it, only this machine reaches it.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8077,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="OUTBOX_PAGE_TOKEN_FILE",
            help="A file with the password that the page asks for; without it, one is made up and printed.",
            show_default=False,
        ),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Permit no replay, discard, pause and resume.")
    ] = False,
    unguarded: Annotated[
        bool, typer.Option("--unguarded", help="Ask for no password: all who reach the address may use the page.")
    ] = False,
) -> Exit:
    """Serve a page and a REST API: queues, dead letters, pauses, audit log, and what is wrong.

    It listens on this machine alone. Browsers ask for a name, which the audit log shows, and for the password. Ctrl-C
    ends it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        msg = f"{' and '.join(missing)} not installed; the page needs the extra 'page' of this package"
        raise CommandError(msg, Exit.USAGE)
    if host not in LOOPBACK and token_file is None and not unguarded:
        msg = (
            f"--host {host}: others reach it there: give --token-file, or say --unguarded. Passwords and messages go "
            "over HTTP as they are, so put a proxy with TLS before it"
        )
        raise CommandError(msg, Exit.USAGE)
    token = None if unguarded else _token(token_file)
    async with site.open() as admin:
        # What cannot be used is said now, and not on the page.
        await admin.overview(at_most=1)
        return await _serve(
            _make_app(admin, token, host, read_only=read_only), host, port, token, is_given=token_file is not None
        )


def _token(file: Path | None) -> str:
    if file is None:
        return secrets.token_urlsafe(TOKEN_BYTES)
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CommandError(f"--token-file: {file} cannot be read: {reason}", Exit.USAGE) from error
    if len(token) < SHORTEST_TOKEN:
        raise CommandError(f"--token-file: the password must have {SHORTEST_TOKEN} characters or more", Exit.USAGE)
    return token


def _make_app(admin: OutboxAdmin, token: str | None, host: str, *, read_only: bool) -> Any:
    # Not before: who only uses other commands does not need what this needs.
    from fastapi import Depends, FastAPI  # noqa: PLC0415

    from faststream_outbox.admin import make_admin_router  # noqa: PLC0415

    # FastAPI's own pages for the document load scripts from another host.
    app = FastAPI(title="faststream-outbox", docs_url=None, redoc_url=None, openapi_url=None)
    guard = _guard(token)
    dependencies = [Depends(_own_host())] if host in LOOPBACK else []
    if token is not None:
        dependencies.append(Depends(guard))

    async def document() -> dict[str, Any]:
        return app.openapi()

    options: dict[str, Any] = {"dependencies": dependencies, "include_in_schema": False}
    app.add_api_route("/api/openapi.json", document, **options)
    actor = None if read_only else guard
    app.include_router(
        make_admin_router(admin, dependencies=dependencies, actor=actor, prefix="", unguarded=not dependencies)
    )
    return app


def _own_host() -> Callable[..., None]:
    """Return a dependency that refuses other names of this machine: a page of another site could have one lead here."""
    from fastapi import HTTPException, Request  # noqa: PLC0415

    def check(request: Request) -> None:
        if not OWN_HOST.fullmatch(request.headers.get("host", "")):
            raise HTTPException(400, "this page is at 127.0.0.1, localhost and [::1]")

    return check


def _guard(token: str | None) -> Callable[..., str]:
    from fastapi import Depends, HTTPException  # noqa: PLC0415
    from fastapi.security.http import HTTPAuthorizationCredentials, HTTPBase  # noqa: PLC0415

    if token is None:
        return me

    # Not HTTPBasic, which reads names and passwords in ASCII alone.
    basic = HTTPBase(scheme="basic", auto_error=False)

    def guard(given: Annotated[HTTPAuthorizationCredentials | None, Depends(basic)]) -> str:
        name, password = ("", "") if given is None else _read_basic(given)
        if not secrets.compare_digest(password.encode(), token.encode()):
            asked = {"WWW-Authenticate": 'Basic realm="outbox", charset="UTF-8"'}
            raise HTTPException(401, "give a name and the password", asked)
        return name or me()

    return guard


def _read_basic(given: Any) -> tuple[str, str]:
    """Return the name and the password that a browser sends; empty ones where they cannot be read."""
    if given.scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = b64decode(given.credentials, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return name, password


async def _serve(app: Any, host: str, port: int, token: str | None, *, is_given: bool) -> Exit:
    import uvicorn  # noqa: PLC0415

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                bound = self.servers[0].sockets[0].getsockname()[1]
                _announce(f"http://{f'[{host}]' if ':' in host else host}:{bound}/", host, token, is_given=is_given)

    await Server(uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False)).serve()
    return Exit.OK


def _announce(url: str, host: str, token: str | None, *, is_given: bool) -> None:
    out = console(stderr=True)
    out.print(f"The page is at {url}; Ctrl-C ends it.", soft_wrap=True)
    out.print(
        "Only this machine reaches it." if host in LOOPBACK else "Others reach it: put TLS before it.", soft_wrap=True
    )
    if token is None:
        out.print("It asks for no password.", soft_wrap=True)
    elif is_given:
        out.print(
            "It asks for your name, which the audit log shows, and for the password of --token-file.", soft_wrap=True
        )
    else:
        out.print(f"It asks for your name, which the audit log shows, and for this password: {token}", soft_wrap=True)
