"""Reads the list of mutants."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("list.toml")
SOURCES = Path("src/faststream_outbox")
"""Relative to the root of the repository, from which everything here runs."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One careless change, and the tests that should notice it."""

    area: str
    file: str
    """Relative to ``SOURCES``."""
    before: str
    """Stands exactly once in the file."""
    after: str
    tests: str
    """Arguments of pytest, parted by spaces."""
    equivalent: str = ""
    """Why the change breaks nothing, where it does not; then the tests must pass with it."""

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.file}: {before!r} → {after!r}"

    @property
    def needs_servers(self) -> bool:
        return any(not test.startswith("tests/") for test in self.tests.split())

    def problems(self) -> Iterator[str]:
        """Yield what keeps this entry of the list from being tried."""
        path = SOURCES / self.file
        if not path.is_file():
            yield f"{self.file}: there is no such file"
            return
        found = path.read_text(encoding="utf-8").count(self.before)
        if found != 1:
            yield f"{self.file}: {self.before!r} stands there {found} times, and not once"
        if self.before == self.after:
            yield f"{self.file}: {self.before!r} is not changed"
        for test in self.tests.split():
            if not test.startswith("-") and not Path(test.partition("::")[0]).exists():
                yield f"{self.file}: there is no {test}"


def read() -> list[Mutant]:
    """Return all mutants in the order of the list."""
    areas = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Mutant(area=area, **entry) for area, content in areas.items() for entry in content["mutants"]]
