"""Pages from templates. Texts are escaped by default: what a row has is text, never markup."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from faststream_outbox.admin.page import words
from faststream_outbox.admin.page.plots import plot
from faststream_outbox.admin.page.security import NOTICE, actor_of, form_token, keep_token, take_notice

FOLDER = Path(__file__).parent
ASSETS: Mapping[str, str] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""What is shipped beside the templates, with their types."""

NOTICED = ("dead", "pauses")
"""Pages to which one is led after something was done."""


class Renderer:
    """Fills in templates.

    Args:
        title: Which outbox it is, for people who run several.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= words.FILTERS
        self._templates.globals |= {
            "of_queue": words.of_queue,
            "of_forwarder": words.of_forwarder,
            "plot": plot,
            # Browsers keep what they have of this release, and no longer.
            "version": hashlib.sha256(b"".join(asset(name) for name in ASSETS)).hexdigest()[:12],
        }

    async def page(self, request: Request, template: str, **names: Any) -> HTMLResponse:
        """Return a page, made in a thread: the loop that serves it also serves the application."""
        return await asyncio.to_thread(self.short_page, request, template, **names)

    def short_page(self, request: Request, template: str, *, status: int = 200, **names: Any) -> HTMLResponse:
        """Return a page, with what its forms need to be accepted."""
        token = form_token(request)
        here = request.url.path.rstrip("/").rpartition("/")[2]
        text = self._templates.get_template(f"{template}.html").render(
            title=self._title,
            actor=actor_of(request),
            token=token,
            here=here,
            query=request.query_params,
            notice=request.cookies.get(NOTICE, "").split(":") if template in NOTICED else [],
            **names,
        )
        response = HTMLResponse(text, status)
        keep_token(request, response, token)
        if template in NOTICED:
            take_notice(request, response)
        return response


def asset(name: str) -> bytes:
    """Return a file that is shipped with the pages."""
    return (FOLDER / "static" / name).read_bytes()
