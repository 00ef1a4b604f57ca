"""Apply each mutant of the list to a copy of the sources, and run the tests that should notice it.

Exits with 1 if a mutant survives that is not argued to be equivalent, or if the list does not fit the sources.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.catalogue import SOURCES, Mutant, read

LIMIT_SECONDS = 300.0
"""A mutant whose tests have not ended by then has made them hang: it is noticed."""

TESTS_FAILED = 1
"""pytest's exit code. Any other but 0 says that the tests did not run."""


class Fate(StrEnum):
    """What became of a mutant."""

    FOUND = "found"
    SURVIVED = "SURVIVED"
    EQUIVALENT = "equivalent"
    BROKEN = "BROKEN"
    """The tests could not even be collected, or it is not equivalent after all: no fair mutant."""


class Bench:
    """Copies of the sources, in each of which one mutant is tried at a time."""

    def __init__(self, folder: Path, copies: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(copies):
            root = folder / str(number)
            shutil.copytree(SOURCES, root / SOURCES.name, ignore=shutil.ignore_patterns("__pycache__"))
            self._free.put(root)

    def try_out(self, mutant: Mutant) -> tuple[Fate, str]:
        """Run the mutant's tests with it; return what became of it, and the end of what the tests printed."""
        root = self._free.get()
        path = root / SOURCES.name / mutant.file
        original = path.read_text(encoding="utf-8")
        try:
            _write(path, original.replace(mutant.before, mutant.after))
            code, output = _run(root, mutant.tests)
        finally:
            _write(path, original)
            self._free.put(root)
        return _fate(mutant, code), "\n".join(output.splitlines()[-15:])


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    # Python takes compiled code for valid by size and second: two mutants in a row may have both in common.
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _run(root: Path, tests: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "HYPOTHESIS_STORAGE_DIRECTORY": str(root / "hypothesis")}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return TESTS_FAILED, "the tests did not end"
    return done.returncode, done.stdout


def _fate(mutant: Mutant, code: int) -> Fate:
    if code == 0:
        return Fate.EQUIVALENT if mutant.equivalent else Fate.SURVIVED
    return Fate.FOUND if code == TESTS_FAILED and not mutant.equivalent else Fate.BROKEN


def _chosen(mutants: Sequence[Mutant], arguments: argparse.Namespace) -> list[Mutant]:
    if arguments.only:
        mutants = [mutant for mutant in mutants if arguments.only in f"{mutant.area} {mutant}"]
    if not arguments.seconds:
        return list(mutants)
    # The same ones each time, unless the list changes: a run says what it has looked at.
    quick = [mutant for mutant in mutants if not mutant.needs_servers and not mutant.equivalent]
    return random.Random(len(mutants)).sample(quick, len(quick))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", help="those whose area, file or change has this text")
    parser.add_argument("--seconds", type=float, help="a sample without servers: begin no more after this time")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: %(default)s)"
    )
    arguments = parser.parse_args()

    mutants = read()
    problems = [problem for mutant in mutants for problem in mutant.problems()]
    if problems:
        print("The list does not fit the sources:", *problems, sep="\n  ")
        return 1
    chosen = _chosen(mutants, arguments)
    until = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
    bad: list[Mutant] = []
    tried = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        bench = Bench(Path(folder), arguments.jobs)

        def attempt(mutant: Mutant) -> tuple[Fate, str] | None:
            return bench.try_out(mutant) if time.monotonic() < until else None

        for mutant, result in zip(chosen, pool.map(attempt, chosen), strict=True):
            if result is None:
                continue
            fate, output = result
            tried += 1
            print(f"{tried:4}  {fate:10}  {mutant}", flush=True)
            if fate in {Fate.SURVIVED, Fate.BROKEN}:
                bad.append(mutant)
                print(output, flush=True)
    print(f"{tried} of {len(mutants)} mutants tried; {len(bad)} survived or are no fair mutants")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
