"""Checks a built site: `python .ci/check_site.py build/site`.

- A page, a style or an icon loads nothing from another host, so that the site works without a network.
- A link within the site leads to a page that is there, and to an anchor that this page has.

Prints every finding as ``page: text`` and exits with 1 if there is one.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
    "object": "data",
    "embed": "src",
}
"""What a browser loads by itself, by the attribute that names it."""

NOT_LOADED = frozenset({"canonical", "next", "prev", "alternate", "edit"})
"""``<link rel=...>`` that only tells where something is."""

OF_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)")


class Page(HTMLParser):
    """What a page loads, where its links lead, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded = list[str]()
        self.links = list[str]()
        self.anchors = {"", "__top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one element."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and not NOT_LOADED & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        if LOADED.get(tag) in values:
            self.loaded.append(values[LOADED[tag]])


def findings(site: Path) -> Iterator[str]:
    """Yields one line for each thing that is loaded from elsewhere, and for each link to nowhere."""
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        yield from (f"{name}: loads {target}" for target in page.loaded if urlsplit(target).netloc)
        for link in page.links:
            target = urlsplit(link)
            # The page for what is not there is served at any path, so its links begin at the root.
            if target.scheme or target.netloc or path.name == "404.html":
                continue
            there = (path.parent / unquote(target.path)).resolve() if target.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                yield f"{name}: leads to {link}, which is not there"
            elif there in pages and unquote(target.fragment) not in pages[there].anchors:
                yield f"{name}: leads to {link}, and that page has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for target in OF_STYLES.findall(path.read_text("utf-8")):
            yield f"{path.relative_to(site)}: loads {target}"


def main() -> int:
    """Prints the findings and returns the exit code."""
    site = Path(sys.argv[1])
    found = [*findings(site)]
    count = len([*site.rglob("*.html")])
    print("\n".join(found) or f"{count} pages load nothing from elsewhere, and their links lead somewhere")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
