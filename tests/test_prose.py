"""The checker of prose finds each thing that it forbids, and the project keeps its rules."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

CHECKER = Path(__file__).parents[1] / ".ci" / "check_prose.py"


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_prose", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_project_keeps_the_rules(checker: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    status = checker.main()
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the rows.", 0),
        ("Send them; tell nobody.", 0),
        ("Tell how many there are.", 1),
        ("Makes a row.", 1),
        ("Whether it is there.", 1),
        ("The rows.", 1),
        ("All: they are needed.", 1),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_docstring_begins_with_a_verb(checker: ModuleType, kind: str, docstring: str, expected: int) -> None:
    found = list(checker.findings_in_python("a.py", f'{kind} rows():\n    """{docstring}"""\n'))
    assert len(found) == expected
    assert all(line.startswith("a.py:1: rows: ") for line in found)


def test_a_property_is_documented_as_a_thing(checker: ModuleType) -> None:
    source = 'class Row:\n    @property\n    def key(self):\n        """The key."""\n'
    assert not list(checker.findings_in_python("a.py", source))


@pytest.mark.parametrize(
    ("name", "expected"), [("Sender", 0), ("Outgoing", 0), ("String", 1), ("_Fetching", 1), ("Ringer", 0)]
)
def test_a_class_is_named_after_what_it_is(checker: ModuleType, name: str, expected: int) -> None:
    found = list(checker.findings_in_python("a.py", f"class {name}: ...\n"))
    assert len(found) == expected, found


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1  # whoever waits\n", 1),
        ('"""Rows.\n\nWhoever waits.\n"""\n', 3),
        ('x = 1\nmsg = f"{x} hangs on {x}"\n', 2),
    ],
)
def test_phrases_are_found_in_comments_docstrings_and_texts(checker: ModuleType, source: str, line: int) -> None:
    [found] = checker.findings_in_python("a.py", source)
    assert found.startswith(f"a.py:{line}: ")


def test_names_in_code_are_no_phrases(checker: ModuleType) -> None:
    assert not list(checker.findings_in_python("a.py", "whoever = 1\n"))


def test_phrases_are_found_in_pages_unless_they_are_quoted(checker: ModuleType) -> None:
    text = 'Write no "whoever".\nA test says in earnest: no.\n'
    [found] = checker.findings_in_text("page.md", text)
    assert found.startswith("page.md:2: 'in earnest'")


def test_long_sentences_are_found_across_lines(checker: ModuleType) -> None:
    page = "# Title\n\n- " + "one " * 20 + "\n  " + "two " * 21 + "end. Short one.\n\n" + "word " * 40 + "\n"
    [found] = checker.long_sentences("page.md", page)
    assert found.startswith("page.md:3: a sentence of 42 words")


@pytest.mark.parametrize("page", ["| " + "word " * 50 + "|\n", "```\n" + "word " * 50 + "\n```\n"])
def test_tables_and_code_are_no_sentences(checker: ModuleType, page: str) -> None:
    assert not list(checker.long_sentences("page.md", page))


def test_code_between_paragraphs_ends_them(checker: ModuleType) -> None:
    page = "word " * 30 + "\n```\ncode\n```\n" + "word " * 30 + "\n"
    assert not list(checker.long_sentences("page.md", page))


TABLE = "| Word | Means |\n|---|---|\n| row | A message. |\n| hand-over | A transaction. |\n\n| Option | |\n| x | 1 |\n"


def test_the_words_of_a_page_are_those_of_its_table(checker: ModuleType) -> None:
    assert checker.words_of(TABLE) == ["row", "hand-over"]


def test_words_that_occur_no_longer_are_found(checker: ModuleType) -> None:
    tables = {"docs/glossary.md": ["row", "hand-over", "set aside", "crew"]}
    texts = {"docs/glossary.md": "Rows of a HandOver, hand_over(); set-aside. Screwdriver. hand-over"}
    [found] = checker.findings_in_glossaries(tables, texts)
    assert found == "docs/glossary.md: 'crew' occurs no longer"


def test_a_word_stands_in_one_table(checker: ModuleType) -> None:
    tables = {"docs/glossary.md": ["row"], "integration/README.md": ["row"]}
    [found] = checker.findings_in_glossaries(tables, dict.fromkeys(tables, "row"))
    assert found == "integration/README.md: 'row' stands in docs/glossary.md too"


def test_the_glossary_has_a_bound(checker: ModuleType) -> None:
    words = [f"word{number}" for number in range(41)]
    text = {"docs/glossary.md": " ".join(words)}
    assert not list(checker.findings_in_glossaries({"docs/glossary.md": words[:40]}, text))
    [found] = checker.findings_in_glossaries({"docs/glossary.md": words}, text)
    assert found.startswith("docs/glossary.md: 41 words")
