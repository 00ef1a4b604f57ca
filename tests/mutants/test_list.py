"""The list of mutants fits the sources, and the program that tries them tells the found from the survivors."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.__main__ import Bench, Fate
from tests.mutants.catalogue import Mutant, read

HARMLESS = Mutant(
    area="here",
    file="_values/uuid7.py",
    before="_RANDOM_BYTES = 10\n",
    after="_RANDOM_BYTES = 5 + 5\n",
    tests="tests/values/test_uuid7.py",
)
HARMFUL = replace(HARMLESS, after="_RANDOM_BYTES = 9\n")
UNREADABLE = replace(HARMLESS, after="_RANDOM_BYTES = (\n")


def test_each_mutant_can_be_applied_and_has_tests() -> None:
    assert [problem for mutant in read() for problem in mutant.problems()] == []


def test_no_mutant_stands_twice_in_the_list() -> None:
    changes = [(mutant.file, mutant.before, mutant.after) for mutant in read()]

    assert len(set(changes)) == len(changes)
    assert len(changes) >= 150


def test_found_survivors_and_unfair_ones_are_told_apart(tmp_path: Path) -> None:
    # One copy of the sources, in turn: each mutant is tried without the ones before it.
    bench = Bench(tmp_path, 1)
    mutants = {
        HARMFUL: Fate.FOUND,
        HARMLESS: Fate.SURVIVED,
        replace(HARMFUL, equivalent="it is not"): Fate.BROKEN,
        replace(HARMLESS, equivalent="10 is 5 + 5"): Fate.EQUIVALENT,
        UNREADABLE: Fate.BROKEN,
    }

    assert {mutant: bench.try_out(mutant)[0] for mutant in mutants} == mutants


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file": "nothing.py"}, "there is no such file"),
        ({"before": "no such text"}, "stands there 0 times"),
        ({"before": "digits"}, "times, and not once"),
        ({"after": HARMLESS.before}, "is not changed"),
        ({"tests": "tests/nothing.py"}, "there is no tests/nothing.py"),
    ],
)
def test_an_entry_that_does_not_fit_says_why(changes: dict[str, str], problem: str) -> None:
    [found] = replace(HARMLESS, **changes).problems()
    assert problem in found
