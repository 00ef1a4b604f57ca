"""Where the database is, and that nobody sees how to get in."""

from pathlib import Path

import pytest

from faststream_outbox._values.dsn import without_secrets
from faststream_outbox.cli.dsn import read_dsn
from faststream_outbox.cli.exits import CommandError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql+asyncpg://u:p%40@h/d?ssl=require", "postgresql://u:p%40@h/d?sslmode=require"),
        (
            "postgresql+psycopg://h/d?sslmode=disable&application_name=x",
            "postgresql://h/d?sslmode=disable&application_name=x",
        ),
        ("postgresql://a:1,b:2/d?target_session_attrs=primary", "postgresql://a:1,b:2/d?target_session_attrs=primary"),
    ],
)
def test_addresses_are_read_as_asyncpg_takes_them(given: str, read: str) -> None:
    assert read_dsn(given, None) == read


def test_the_file_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text(" postgresql://h/d\n")
    assert read_dsn("postgresql://other/d", file) == "postgresql://h/d"


def test_what_is_no_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for dsn, file in ((None, None), ("", None), ("mysql://u:secret@h/d", None), (None, tmp_path / "bytes")):
        with pytest.raises(CommandError) as refused:
            read_dsn(dsn, file)
        assert refused.value.code == 2
        assert "secret" not in str(refused.value)


def test_passwords_are_taken_out_of_texts() -> None:
    assert without_secrets("login u secret failed", "postgresql://u:secret@h/d") == "login u *** failed"
    assert without_secrets("p%40ss p@ss", "postgresql://u:p%40ss@h/d") == "*** ***"
    assert without_secrets("as it is", "postgresql://u@h/d") == "as it is"
    assert without_secrets("as it is", "postgresql://[broken/d") == "as it is"
