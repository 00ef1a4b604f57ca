"""Answers only to names that this machine has: a page of elsewhere may have its own name point here (DNS rebinding).

An address in numbers needs no entry, since no name can stand for it. ``ALLOWED_HOSTS`` in the environment names others.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

REFUSED = b"This host is not served here: ALLOWED_HOSTS in the environment names those that are.\n"


class KnownHosts:
    """Refuses requests and websockets for other hosts with 421, before the application sees them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._known = {"localhost", os.environ.get("HOST", "localhost").lower()}
        self._known.update(os.environ.get("ALLOWED_HOSTS", "").lower().split())

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._serves(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(REFUSED))]
            await send({"type": "http.response.start", "status": 421, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSED})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _serves(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and self._is_known(hosts[0])

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._known or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
