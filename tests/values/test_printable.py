"""Whatever stands in a row is one line in a log, and shows what it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.printable import printable


@pytest.mark.parametrize("text", ["", "orders", "naïve — 注文 😀", "a=>redis:b", "back\\slash 'quoted'"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc", r"a\nb\r\nc"),
        ("\x1b[2J\x00\x7f\t", r"\x1b[2J\x00\x7f\t"),
        ("next\x85line", r"next\x85line"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("right\u202eto left", r"right\u202eto left"),
        ("lone \ud800", r"lone \ud800"),
    ],
)
def test_what_cannot_is_written_as_python_writes_it(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_it_is_always_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    shown.encode()
