"""What is kept of exceptions is what the application's function says, whatever that does."""

from typing import Any

import pytest

from faststream_outbox._values.renderer import Renderer


class Secret(Exception):
    def __str__(self) -> str:
        return "alice@example.com"


def render(answer: Any) -> tuple[list[str | None], list[str]]:
    def give(error: BaseException) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    said: list[str] = []
    renderer = Renderer(give, said.append)
    return [renderer(Secret()), renderer(Secret()), renderer(ValueError())], said


def test_what_the_function_returns_is_kept() -> None:
    assert render("it failed") == (["it failed"] * 3, [])
    assert render("") == ([""] * 3, [])


def test_nothing_is_kept_of_nothing() -> None:
    assert Renderer(str, print)(None) is None


@pytest.mark.parametrize("answer", [Secret(), TypeError("x"), None, b"bytes", 7])
def test_a_function_that_fails_costs_the_words_alone(answer: Any) -> None:
    kept, said = render(answer)
    assert kept == ["Secret", "Secret", "ValueError"]
    problem = f"raised {type(answer).__name__}" if isinstance(answer, Exception) else "returned"
    assert [line.split(";")[0].split(" for ")[1] for line in said] == ["Secret", "ValueError"]
    assert all(line.startswith(f"exception_renderer {problem}") and "alice" not in line for line in said)


def test_what_postgresql_cannot_keep_is_changed() -> None:
    assert render("a\x00\ud800")[0][0] == "a\\x00?"
    assert render("x" * 5000)[0][0] == "x" * 2000


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_a_request_to_end_is_not_held_up(error: BaseException) -> None:
    with pytest.raises(type(error)):
        render(error)
