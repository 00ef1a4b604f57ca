"""A page and a REST API for people who run an outbox, as a router for FastAPI."""

from importlib.util import find_spec

_missing = [name for name in ("fastapi", "jinja2") if find_spec(name) is None]
if _missing:
    msg = (
        f"the page needs {' and '.join(_missing)}, not installed here: install this package's checkout or wheel with "
        "its extra page"
    )
    raise ImportError(msg, name=_missing[0])

from faststream_outbox.admin.page.router import make_admin_router  # noqa: E402 - see above

__all__ = ("make_admin_router",)
