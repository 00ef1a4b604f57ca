"""Checks what a machine can check of the rules for prose in CONTRIBUTING.md.

- A function's docstring begins with a verb that says what it does: no "Tell", "Give" or "Make", no question word.
- A class is named after what it is: no name ends in "-ing", except the few below.
- The glossary has at most 40 words. A word stands in one table of words only, and still occurs where it should.
- No page, comment or string has a phrase of the list below. No sentence of a page has more than 40 words.

Prints every finding as ``file:line: text`` and exits with 1 if there is one.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

MOST_WORDS_IN_GLOSSARY = 40
MOST_WORDS_IN_SENTENCE = 40

BANNED_OPENINGS = frozenset(
    """
    tell tells give gives make makes let lets say says do does
    whether how what where when why who whose which those
    the a an all no of in by for with from to as if it its that this true false
    """.split()  # noqa: SIM905 - a line for each word would hide them
)
BANNED_PHRASES = re.compile(
    r"\bwhoever\b|\bwhomever\b|\bin earnest\b|\bwithout a word\b|\bof then\b|\bof before\b|\bhangs? on\b", re.IGNORECASE
)
CLASSES_IN_ING = frozenset({"Drafting", "Ending", "EvictionWarning", "Finding", "Meaning", "Outgoing"})
"""Nouns that are no activities, and an adjective."""

PROPERTIES = ("property", "cached_property")
"""Decorators of functions that are used like attributes, and documented like these."""

TABLES = {
    "docs/glossary.md": ("src", "docs", "README.md"),
    "docs/inside/architecture.md": ("src", "docs"),
    "integration/README.md": ("integration", "tests", "docs"),
}
"""Each page with a table of words, and where its words must occur."""


def findings_in_python(name: str, source: str) -> Iterator[str]:
    """Yields one line for each docstring, class name, comment and string that breaks a rule."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("ing") and node.name.lstrip("_") not in CLASSES_IN_ING:
            yield f"{name}:{node.lineno}: {node.name}: name a class after what it is, not after what it does"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
            opening = (ast.get_docstring(node) or "Return").split(maxsplit=1)[0].strip(".,:;").lower()
            if opening in BANNED_OPENINGS:
                yield f"{name}:{node.lineno}: {node.name}: begin with Return, Raise, Send ..., not with {opening!r}"
    yield from _phrases(name, _comments_and_strings(source))


def findings_in_text(name: str, text: str) -> Iterator[str]:
    """Yields one line for each phrase of the list in a page or an SQL file. What a page quotes is not its own text."""
    yield from _phrases(name, ((number, re.sub(r'"[^"]*"', "", line)) for number, line in _numbered(text)))


def long_sentences(name: str, text: str) -> Iterator[str]:
    """Yields one line for each sentence of a page that has too many words; tables and code are no sentences."""
    for number, paragraph in _paragraphs(text):
        for sentence in re.split(r"(?<=[.!?])[*\"')]*\s+(?=[A-Z`*\[\"(0-9])", re.sub(r"\]\([^)]*\)", "]", paragraph)):
            words = len(re.findall(r"[\w`'./=-]+", sentence))
            if words > MOST_WORDS_IN_SENTENCE:
                yield f"{name}:{number}: a sentence of {words} words: {sentence[:80]}"


def words_of(page: str) -> list[str]:
    """Returns the words of the tables ``| Word | Means |`` of a page."""
    words, inside = [], False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0] == "Word":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(cells[0]) <= set("-: "):
            words.append(cells[0])
    return words


def findings_in_glossaries(tables: dict[str, list[str]], texts: dict[str, str]) -> Iterator[str]:
    """Yields one line for each word that is one too many, stands twice, or occurs no longer.

    ``tables`` has the words of each page, ``texts`` what they should occur in.
    """
    glossary = tables.get("docs/glossary.md", [])
    if len(glossary) > MOST_WORDS_IN_GLOSSARY:
        yield f"docs/glossary.md: {len(glossary)} words, and {MOST_WORDS_IN_GLOSSARY} are permitted"
    seen: dict[str, str] = {}
    for page, words in tables.items():
        text = texts[page].lower()
        for word in words:
            if word in seen:
                yield f"{page}: {word!r} stands in {seen[word]} too"
            seen[word] = page
            if not re.search(r"(?<![a-z])" + r"[\s_-]".join(map(re.escape, word.lower().split())), text):
                yield f"{page}: {word!r} occurs no longer"


def main() -> int:
    """Prints the findings and returns the exit code."""
    found = [
        *(each for path in _files("py", "src") for each in findings_in_python(_name(path), path.read_text("utf-8"))),
        *(each for path in _files("sql", "src") for each in findings_in_text(_name(path), path.read_text("utf-8"))),
    ]
    pages = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")})
    for path in pages:
        text = path.read_text("utf-8")
        found += [*findings_in_text(_name(path), text), *long_sentences(_name(path), text)]
    tables = {page: words_of((ROOT / page).read_text("utf-8")) for page in TABLES if (ROOT / page).exists()}
    found += findings_in_glossaries(tables, {page: _text_of(TABLES[page], tables) for page in tables})
    print("\n".join(found) or f"{len(pages)} pages and the docstrings of src keep the rules for prose")
    return 1 if found else 0


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).split(".")[-1] in PROPERTIES for decorator in node.decorator_list)


def _comments_and_strings(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if tokenize.tok_name[token.type] in {"COMMENT", "STRING", "FSTRING_MIDDLE"}:
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(text.splitlines(), start=1)


def _phrases(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[str]:
    for number, line in lines:
        if found := BANNED_PHRASES.search(line):
            yield f"{name}:{number}: {found.group()!r}: {line.strip()[:120]}"


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yields each paragraph and each item of a list, with the number of its first line."""
    first, lines, fenced = 0, list[str](), False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        stripped = line.strip()
        fence = stripped.startswith("```")
        ends = fenced or fence or not stripped or stripped[0] in "#|" or bool(re.match(r"[-*] |\d+\. ", stripped))
        if ends and lines:
            yield first, " ".join(lines)
            lines = []
        fenced ^= fence
        if stripped and not fenced and not fence and stripped[0] not in "#|":
            first = first if lines else number
            lines.append(re.sub(r"^(?:[-*] |\d+\. )", "", stripped))


def _text_of(places: Iterable[str], tables: Iterable[str]) -> str:
    """Returns the text of files and folders, without the pages that have the tables."""
    paths = [
        path for place in places for path in ([ROOT / place] if "." in place else sorted((ROOT / place).rglob("*")))
    ]
    return "\n".join(
        path.read_text("utf-8") for path in paths if path.suffix in {".py", ".sql", ".md"} and _name(path) not in tables
    )


def _files(suffix: str, folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob(f"*.{suffix}"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
