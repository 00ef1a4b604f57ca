"""Adds to the site what stands outside `docs/`, so that each page is also a plain page of the repository.

A page there links to files of the repository, as a forge shows them: `[SECURITY.md](../SECURITY.md)`,
`[relay.py](../demo/relay.py)`. Here the former becomes a page of the site, and the latter a page that shows the file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "inside/contributing.md",
    "docker/README.md": "inside/containers.md",
    "integration/README.md": "inside/integration.md",
}
"""Pages outside `docs/`, and what they are in the site."""

LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Returns the files of the site with the pages from outside, and one for each file that a page links to."""
    for path, name in PAGES.items():
        # Beside the first page there is nothing to list.
        before = "---\nhide:\n  - navigation\n---\n\n" if name == "index.md" else ""
        files.append(File.generated(config, name, content=before + (ROOT / path).read_text("utf-8")))
    files.append(File.generated(config, "assets/icon.svg", abs_src_path=str(ROOT / "demo" / "static" / "icon.svg")))
    shown = {
        target for file in files.documentation_pages() for target in _targets(file) if _of_the_site(target) is None
    }
    for path in sorted(shown):
        files.append(File.generated(config, f"source/{path}.md", content=_page_of(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Returns a page whose links to files of the repository lead to pages of the site."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown
    folder = posixpath.dirname(_in_repository(here))

    def of_the_site(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        if _is_elsewhere(target):
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = _of_the_site(path) or f"source/{path}.md"
        return f"{before}{posixpath.relpath(there, posixpath.dirname(here) or '.')}{after}"

    # What stands between fences is code.
    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(of_the_site, part) for part in parts)


def _targets(file: File) -> set[str]:
    """Returns the files of the repository that a page links to."""
    folder = posixpath.dirname(_in_repository(file.src_uri))
    text = FENCE.sub("", file.content_string)
    found = (target for _, target, _ in LINK.findall(text) if not _is_elsewhere(target))
    return {path for target in found if (ROOT / (path := posixpath.normpath(posixpath.join(folder, target)))).is_file()}


def _is_elsewhere(target: str) -> bool:
    return target.startswith(("http:", "https:", "mailto:", "<"))


def _in_repository(name: str) -> str:
    return next((path for path, of_the_site in PAGES.items() if of_the_site == name), f"docs/{name}")


def _of_the_site(path: str) -> str | None:
    """Returns what a page of the repository is in the site; None for a file that is no page of it."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)


def _page_of(path: str) -> str:
    """Returns a page that shows a file."""
    language = LANGUAGES.get(Path(path).suffix, "text")
    text = (ROOT / path).read_text("utf-8").rstrip()
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n````{language}\n{text}\n````\n"
