"""Checks that no file of the repository names a machine's folder or a package registry's host.

A path of one machine works nowhere else. A registry's address in a lock file or a script overrides the mirror that a
reader has set up. Prints every finding as ``file:line: text`` and exits with 1 if there is one.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Joined here, so that this file passes its own check.
_HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("debian", "org"),
        ("ubuntu", "com"),
        ("maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("golang", "org"),
        ("crates", "io"),
        ("docker", "io/"),
        ("ghcr", "io"),
        ("quay", "io"),
    )
]
_HOST = re.compile(r"\b(?:" + "|".join(re.escape(host) for host in _HOSTS) + ")")
_MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:" + "|".join(("work", "root", "home")) + r")/")


def repository_files() -> list[Path]:
    """Returns what is tracked, and what would be if everything were added."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [path for name in listing.stdout.split("\0") if name and (path := Path(name)).is_file()]


def findings(path: Path) -> Iterator[str]:
    """Yields one line for each offending line of the file; a file that is no text has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if _HOST.search(line) or _MACHINE_PATH.search(line):
            yield f"{path}:{number}: {line.strip()[:160]}"


def main() -> int:
    """Prints the findings and returns the exit code."""
    files = repository_files()
    found = [finding for path in files for finding in findings(path)]
    print("\n".join(found) or f"{len(files)} files name no machine's folder and no registry's host")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
